"""The parity record finds a difference wherever it hides."""

import json

import numpy as np
import pytest

from embedkit.errors import ParityFailed
from embedkit.export.hard_inputs import patterns, search
from embedkit.export.parity_record import Effort, measure_parity


class Pixels:
    """Embeds an image as its normalised pixels; ``flaw`` says how much to add for which."""

    digest = "x"
    dim = 16

    def __init__(self, flaw=None) -> None:
        self.flaw = flaw
        self.images = 0

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        vectors = images.reshape(len(images), -1).astype(np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        if self.flaw is not None:
            vectors[:, 0] += self.flaw(images)
        return vectors


@pytest.fixture
def real(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(100, 156, (20, 4, 4, 1), dtype=np.uint8)


EFFORT = Effort(images=20, extreme=32, steps=10)


def test_equal_embedders_pass_and_the_record_is_json(real) -> None:
    record = measure_parity(Pixels(), Pixels(), real, effort=EFFORT)
    assert json.loads(json.dumps(record)) == record
    assert record["max_abs_error"] == 0
    assert record["limit"] == 1e-5
    assert record["min_cosine"] == pytest.approx(1)
    assert list(record["inputs"]) == ["real", "extreme", "searched"]
    for part in record["inputs"].values():
        assert [batch["batch_size"] for batch in part["batches"]] == [1, 2, 3, 8, 64]


@pytest.mark.parametrize(
    ("flaw", "where"),
    [
        (
            lambda x: 2e-5 * (np.ptp(x.reshape(len(x), -1), axis=1) < 60),
            "real|extreme|searched",
        ),
        (lambda x: 2e-5 * (x.reshape(len(x), -1).max(axis=1) == 0), "extreme"),
        (lambda x: np.where(x.reshape(len(x), -1).min(axis=1) == 255, np.nan, 0), "extreme"),
        (lambda x: 2e-5 * (len(x) == 3), "real|extreme|searched"),
    ],
)
def test_a_difference_above_the_limit_fails_with_its_value(real, flaw, where: str) -> None:
    with pytest.raises(ParityFailed, match=rf"within 1e-05 .* got (2e-05|inf) on ({where})"):
        measure_parity(Pixels(), Pixels(flaw), real, effort=EFFORT)


def test_the_search_finds_what_neither_real_nor_extreme_images_show(real) -> None:
    """The flaw grows as pixel (1, 1) leaves pixel (2, 2) and is worst far from any pattern."""

    def flaw(images):
        gap = np.abs(images[:, 1, 1, 0].astype(float) - images[:, 2, 2, 0] - 150)
        return 1.2e-5 * np.exp(-((gap / 8) ** 2))

    with pytest.raises(ParityFailed, match="on searched images"):
        measure_parity(Pixels(), Pixels(flaw), real, effort=Effort(20, 32, 40))


def test_the_search_never_falls_and_is_repeatable(real) -> None:
    def flaw(images):
        return 1e-6 * images.reshape(len(images), -1).mean(axis=1)

    def worst(steps: int) -> tuple[float, bytes]:
        rng = np.random.default_rng(5)
        found = search(Pixels(), Pixels(flaw), real, steps=steps, rng=rng)
        assert found.shape[1:] == (4, 4, 1)
        assert found.dtype == np.uint8
        return float(flaw(found).max()), found.tobytes()

    values = [worst(steps)[0] for steps in (0, 5, 20)]
    assert values[0] == pytest.approx(flaw(real).max())
    assert values[0] < values[1] <= values[2]
    assert worst(5) == worst(5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (1, 1, 1), (1, 9, 3)])
def test_patterns_are_extreme_images_of_the_shape(shape) -> None:
    images = patterns(shape, np.random.default_rng(0))
    assert images.shape[1:] == shape
    assert images.dtype == np.uint8
    flat = images.reshape(len(images), -1)
    assert (flat[0] == 0).all()
    assert (flat[5] == 255).all()
    if shape[0] > 1:
        constant = (flat == flat[:, :1]).all(axis=1).sum()
        assert constant < len(images) / 2


def test_effort_fits_the_budget_between_its_bounds() -> None:
    assert Effort.within_budget(10**6) == Effort(256, 32, 40)
    large = Effort.within_budget(8 * 10**9)
    assert large == Effort(8, 8, 1)
    counted = Pixels()
    measure_parity(counted, Pixels(), np.zeros((300, 4, 4, 1), np.uint8), effort=large)
    # 24 images at sizes 1, 2, 3 and 8, one batch of 64, and 16 + 64 of the search.
    assert counted.images == 4 * 24 + 64 + 16 + 64
