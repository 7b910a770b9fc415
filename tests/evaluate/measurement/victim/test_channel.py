"""Channels: a PNG loses nothing, a JPEG does, and the victim is asked for what a head needs."""

import io

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.measurement.victim.channel import encoded, through
from embedkit.testing import ConstantEmbedder, PerfectEmbedder
from embedkit.types import Metered


@pytest.mark.parametrize("channels", [1, 3])
def test_png_loses_nothing_and_jpeg_little(rng, channels):
    images = rng.integers(0, 256, (3, 16, 16, channels)).astype(np.uint8)
    for data, image in zip(encoded(images, "png"), images, strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape)
        assert np.array_equal(decoded, image)
    smooth = np.full((1, 16, 16, channels), 130, np.uint8)
    for quality in (30, 90):
        (data,) = encoded(smooth, "jpeg", quality=quality)
        decoded = np.asarray(Image.open(io.BytesIO(data))).reshape(smooth[0].shape)
        assert np.abs(decoded.astype(int) - smooth[0]).max() <= 3
    fine, coarse = (encoded(images, "jpeg", quality=q) for q in (90, 30))
    assert sum(map(len, coarse)) < sum(map(len, fine))


def test_what_cannot_be_encoded_is_refused():
    with pytest.raises(InvalidInput, match="expected 1 or 3 channels for png, got 2"):
        encoded(np.zeros((1, 4, 4, 2), np.uint8), "png")
    with pytest.raises(InvalidInput, match="expected an encoding of"):
        encoded(np.zeros((1, 4, 4, 1), np.uint8), "gif")  # type: ignore[arg-type]


def test_a_victim_behind_files_answers_as_it_does_to_pixels(source):
    model = PerfectEmbedder(source)
    images = source.dataset(12).images
    behind = through(model, encoding="png")
    assert np.array_equal(behind.embed(images), model.embed(images))
    assert isinstance(behind, Metered)
    assert behind.usage.images == 24
    assert (behind.dim, behind.digest) == (model.dim, model.digest)
    features = through(model, output="features", encoding="png")
    assert np.array_equal(features.embed(images), model.features(images))


def test_a_victim_without_features_is_named():
    class Plain:
        dim, digest = 8, "sha256:plain"
        embed = ConstantEmbedder().embed

    with pytest.raises(NotFound, match="expected a model with features, got Plain"):
        through(Plain(), output="features")
    assert not isinstance(through(Plain(), encoding="png"), Metered)
