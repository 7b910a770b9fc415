import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec
from embedkit.runtime.features import FeatureCache, Output, RawPixels
from embedkit.types import Embedder


class Counted:
    """Gives the same array and counts how often."""

    def __init__(self, array):
        self.array = array
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.array


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(6, 4)).astype(np.float32)


@pytest.mark.parametrize("on_disk", [True, False])
def test_computed_once_per_run(tmp_path, vectors, on_disk):
    cache, compute = FeatureCache(tmp_path / "c" if on_disk else None), Counted(vectors)
    for _ in range(2):
        found = cache.get("m", "d", "embedding", 6, compute)
        np.testing.assert_array_equal(found, vectors)
    assert compute.calls == 1
    assert (tmp_path / "c").exists() == on_disk


@pytest.mark.parametrize(
    "key", [("n", "d", "embedding"), ("m", "e", "embedding"), ("m", "d", "features")]
)
def test_model_data_and_output_are_the_key(tmp_path, vectors, key: tuple[str, str, Output]):
    cache, compute = FeatureCache(tmp_path), Counted(vectors)
    cache.get("m", "d", "embedding", 6, compute)
    model, data, output = key
    cache.get(model, data, output, 6, compute)
    assert compute.calls == 2


def test_the_next_run_reads_the_same_bits(tmp_path, vectors):
    FeatureCache(tmp_path).get("m", "d", "embedding", 6, Counted(vectors))
    later = Counted(vectors + 1)
    found = FeatureCache(tmp_path).get("m", "d", "embedding", 6, later)
    assert later.calls == 0
    assert found.tobytes() == vectors.tobytes()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_computed_again(tmp_path, vectors, damage):
    FeatureCache(tmp_path).get("m", "d", "embedding", 6, Counted(vectors))
    (stored,) = tmp_path.glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:-7] if damage is None else damage)
    again = Counted(vectors)
    FeatureCache(tmp_path).get("m", "d", "embedding", 6, again)
    assert again.calls == 1


def test_another_length_is_computed_again(tmp_path, vectors):
    FeatureCache(tmp_path).get("m", "d", "embedding", 6, Counted(vectors))
    shorter = Counted(vectors[:5])
    assert len(FeatureCache(tmp_path).get("m", "d", "embedding", 5, shorter)) == 5
    assert shorter.calls == 1


def test_what_a_model_gives_is_checked(vectors):
    cache = FeatureCache()
    with pytest.raises(InvalidInput, match="one embedding for each of 7 images"):
        cache.get("m", "d", "embedding", 7, lambda: vectors)
    vectors[2, 1] = np.nan
    with pytest.raises(InvalidInput, match="got 1 of 6 with NaN or infinity"):
        cache.get("m", "d", "embedding", 6, lambda: vectors)


def test_no_task_can_write_into_what_others_read(vectors):
    found = FeatureCache().get("m", "d", "embedding", 6, lambda: vectors)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_raw_pixels_are_unit_vectors_of_the_pixels(rng):
    images = rng.integers(0, 256, (5, 4, 6, 1), dtype=np.uint8)
    images[3] = 0
    baseline = RawPixels(InputSpec(4, 6, 1))
    found = baseline.embed(images)
    flat = images.reshape(5, 24).astype(np.float64)
    expected = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert (found[3] == 0).all()
    assert baseline.dim == 24
    assert isinstance(baseline, Embedder)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ((32, 32, 3), (32, 32)),
        ((64, 32, 1), (32, 16)),
        ((224, 224, 3), (32, 32)),
        ((500, 4, 1), (32, 1)),
    ],
)
def test_large_images_are_shrunk(spec, shape):
    baseline = RawPixels(InputSpec(*spec))
    assert (baseline.spec.height, baseline.spec.width) == shape
    assert baseline.embed(np.full((2, *spec), 9, np.uint8)).shape == (2, baseline.dim)


def test_digests_of_raw_pixels_follow_the_input():
    digests = {RawPixels(InputSpec(*size)).digest for size in ((8, 8, 1), (8, 8, 3), (9, 8, 1))}
    assert len(digests) == 3
