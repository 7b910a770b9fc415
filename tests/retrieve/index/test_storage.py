"""What is written is read again: whole, halved or in bytes."""

import numpy as np
import pytest

from embedkit.retrieve.index.storage import Storage


def test_float32_keeps_every_bit(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((20, 7)).astype(np.float32)
    vectors[0, 0], vectors[1, 1] = -0.0, np.float32(1e-42)
    storage = Storage("float32", 7)
    assert storage.read(storage.written(vectors)).tobytes() == vectors.tobytes()
    assert storage.rounded(vectors) is vectors


@pytest.mark.parametrize(("name", "width"), [("float32", 28), ("float16", 14), ("int8", 11)])
def test_rows_have_the_width_and_stand_alone(
    rng: np.random.Generator, name: str, width: int
) -> None:
    storage = Storage(name, 7)
    vectors = rng.standard_normal((20, 7)).astype(np.float32)
    data = storage.written(vectors)
    assert storage.width == width
    assert len(data) == 20 * width
    rows = [data[i * width : (i + 1) * width] for i in range(20)]
    assert np.array_equal(storage.read(rows), storage.rounded(vectors))
    for row, vector in zip(rows, vectors, strict=True):
        assert storage.written(vector[None]) == row
    with pytest.raises(ValueError, match=f"rows of {width} bytes"):
        storage.read([rows[0], rows[1][:-1]])
    assert storage.read([]).shape == (0, 7)


def test_float16_rounds_to_eleven_bits(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((50, 9)).astype(np.float32)
    rounded = Storage("float16", 9).rounded(vectors)
    assert np.array_equal(rounded, vectors.astype(np.float16).astype(np.float32))


def test_int8_is_within_half_a_step_of_the_largest_value(rng: np.random.Generator) -> None:
    """The step is the row's largest magnitude over 127, so rows do not share a scale."""
    vectors = rng.standard_normal((50, 9)).astype(np.float32)
    vectors *= 10.0 ** rng.integers(-6, 6, (50, 1))
    vectors = vectors.astype(np.float32)
    step = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float64) / 127
    error = np.abs(Storage("int8", 9).rounded(vectors).astype(np.float64) - vectors)
    assert (error <= step * 0.5 * (1 + 1e-4)).all()


def test_int8_of_zeros_is_zeros() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert np.array_equal(Storage("int8", 3).rounded(zeros), zeros)


def test_every_finite_half_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(-1, 8)
    widened = Storage("float16", 8).directions(halves)
    assert np.array_equal(widened.view(np.uint32), halves.astype(np.float32).view(np.uint32))
