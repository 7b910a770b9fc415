"""The shipped fakes keep what they promise."""

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages
from embedkit.types import Embedder, FeatureEmbedder, Metered, Scorer


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("shape", [(8, 8, 1), (2, 2, 3), (5, 7, 1)])
def test_classes_can_be_read_and_novel_images_told_apart(classes, shape):
    source = SyntheticImages(classes, *shape)
    known, novel = source.dataset(60), source.novel(40)
    assert source.spec.shape == shape == known.image_shape
    found = PerfectEmbedder(source).score(known.images)
    np.testing.assert_array_equal(found.labels, known.labels)
    np.testing.assert_array_equal(found.novelty, np.zeros(60))
    np.testing.assert_array_equal(
        PerfectEmbedder(source).score(novel.images).novelty, np.ones(40)
    )
    assert novel.labels is None


def test_images_depend_on_the_seed_alone():
    source = SyntheticImages()
    np.testing.assert_array_equal(source.dataset(9).images, source.dataset(9).images)
    assert source.dataset(9).digest != source.dataset(9, seed=1).digest
    assert source.novel(9).digest != source.novel(9, seed=1).digest


@pytest.mark.parametrize(
    "settings", [{"classes": 1}, {"classes": 11}, {"height": 1}, {"width": 1}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(InvalidInput, match="expected 2 to 10 classes"):
        SyntheticImages(**settings)


@pytest.mark.parametrize("embedder", [ConstantEmbedder(), PerfectEmbedder(SyntheticImages())])
def test_every_protocol(embedder):
    for protocol in (Embedder, FeatureEmbedder, Scorer, Metered):
        assert isinstance(embedder, protocol)
    images = SyntheticImages().dataset(5).images
    z = embedder.embed(images)
    assert z.shape == (5, embedder.dim)
    assert z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(embedder.score(images).probabilities.sum(axis=1), 1)


def test_constant_is_constant(rng):
    embedder = ConstantEmbedder(dim=3)
    images = rng.integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    assert len(np.unique(embedder.embed(images), axis=0)) == 1
    assert len(np.unique(embedder.features(images), axis=0)) == 1
    np.testing.assert_array_equal(embedder.score(images).labels, np.zeros(7))


def test_questions_are_counted():
    embedder = ConstantEmbedder()
    embedder.embed(np.zeros((3, 8, 8, 1), np.uint8))
    embedder.embed((b"file",))
    usage = embedder.usage
    assert (usage.images, usage.calls, usage.bytes_sent) == (4, 2, 3 * 64 + 4)


def test_small_changes_of_the_pixels_do_not_fool_the_perfect_one(rng):
    source = SyntheticImages(classes=10)
    known = source.dataset(50)
    images = np.asarray(known.images, int)
    changed = np.clip(images + rng.choice([-8, 8], images.shape), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(PerfectEmbedder(source).score(changed).labels, known.labels)
