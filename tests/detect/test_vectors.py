import numpy as np
import pytest

from embedkit.detect.vectors import content_order, in_blocks, keep, largest

SIZES = [(1000, 5), (1003, 7), (640, 5), (50, 50), (20, 1), (130, 1)]


@pytest.mark.parametrize(("m", "k"), SIZES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_largest_values_are_those_of_a_full_sort(m, k, tied):
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(40, m)).astype(np.float32)
    if tied:
        similarity = similarity.round(0)
    found = np.take_along_axis(similarity, largest(similarity, k), axis=1)
    np.testing.assert_array_equal(found, -np.sort(-similarity, axis=1)[:, :k])


def test_columns_are_different_ones_even_if_all_are_equal():
    found = largest(np.zeros((3, 1000), np.float32), 4)
    assert all(len(set(row)) == 4 for row in found.tolist())


def test_the_order_follows_the_content():
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    back = rows[::-1].copy()
    np.testing.assert_array_equal(rows[content_order(rows)], back[content_order(back)])
    assert len(keep(rows, 7)) == 7
    assert len(keep(rows, 0)) == 30


def test_blocks_are_small_and_complete(monkeypatch):
    monkeypatch.setattr("embedkit.detect.vectors._BLOCK_BYTES", 40)
    seen = []

    def score(a, b):
        seen.append(len(a))
        return a[:, 0] + b[:, 0]

    a, b = (np.arange(9.0, dtype=np.float32).reshape(9, 1) * f for f in (1, 10))
    np.testing.assert_array_equal(in_blocks(score, a, b, row_bytes=10), 11 * np.arange(9.0))
    assert seen == [4, 4, 1]
