"""Parity of embedders whose difference is known."""

import json

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.runtime.parity import compare, difference, measure_gaps, row_differences


class Shifted:
    """Embeds an image as its first two pixels, one coordinate of one image shifted."""

    digest = "x"
    dim = 2

    def __init__(self, shift: float = 0.0, only_batch: int | None = None) -> None:
        self.shift, self.only_batch = shift, only_batch
        self.batches: list[int] = []

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        vectors = images.reshape(len(images), -1)[:, :2].astype(np.float32)
        if self.only_batch in (None, len(images)):
            vectors[vectors[:, 0] == 3, 1] += self.shift
        return vectors


def images(n: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 1), i + 1, np.uint8) for i in range(n)])


def test_the_worst_coordinate_at_any_batch_size_counts() -> None:
    parity = compare(Shifted(), Shifted(0.5, only_batch=3), images(7), batch_sizes=(1, 3))
    assert parity.max_abs_error == 0.5
    assert [batch.max_abs_error for batch in parity.batches] == [0.0, 0.5]
    a, b = np.array([3, 3.0]), np.array([3, 3.5])
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert parity.min_cosine == pytest.approx(expected)
    assert parity.n == 7


def test_every_batch_has_exactly_its_size() -> None:
    first = Shifted()
    compare(first, Shifted(), images(5), batch_sizes=(1, 2, 8))
    assert first.batches == [1] * 5 + [2] * 3 + [8]


def test_the_record_is_json() -> None:
    record = compare(Shifted(), Shifted(), images(2)).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert [batch["batch_size"] for batch in record["batches"]] == [1, 2, 3, 8, 64]


def test_not_a_number_is_the_largest_difference() -> None:
    for bad in (np.nan, np.inf):
        parity = compare(Shifted(), Shifted(bad), images(4), batch_sizes=(2,))
        assert parity.max_abs_error == np.inf
        assert parity.min_cosine == -1.0


def test_differences_of_rows() -> None:
    first = np.array([[0, 0], [0, 0], [1, 0], [np.nan, 1], [1e30, 0]], np.float32)
    second = np.array([[0, 0], [1, 1], [0, 2], [1, 1], [1e30, np.inf]], np.float32)
    errors, cosines = row_differences(first, second)
    np.testing.assert_array_equal(errors, [0, 1, 2, np.inf, np.inf])
    np.testing.assert_array_equal(cosines, [1, 0, 0, -1, -1])
    assert difference(first, second) == (np.inf, -1)
    assert difference(first[:3], second[:3]) == (2, 0)
    assert difference(first[:0], second[:0]) == (0, 1)


def test_gaps_know_the_images_and_a_repeated_one_keeps_its_worst() -> None:
    gaps = measure_gaps(Shifted(), Shifted(0.5), images(5), batch_sizes=(1, 2))
    np.testing.assert_array_equal(gaps.errors, [[0, 0, 0.5, 0, 0]] * 2)
    assert gaps.summary(slice(3, 5)).max_abs_error == 0
    assert gaps.summary(slice(2, 4)).max_abs_error == 0.5
    assert gaps.summary(slice(2, 4)).n == 2


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        compare(Shifted(), Shifted(), images(1)[:0])
    with pytest.raises(InvalidInput, match="batch size"):
        compare(Shifted(), Shifted(), images(1), batch_sizes=(0,))
    other = Shifted()
    other.dim = 3
    with pytest.raises(InvalidInput, match="got 2, 3"):
        compare(Shifted(), other, images(1))
