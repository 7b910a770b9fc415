"""Software: coding, resizing, contrast; and the elastic distortion."""

import io

import numpy as np
import pytest
from PIL import Image

from embedkit.evaluate.corruption import corrupt


@pytest.fixture
def photo():
    y, x = np.mgrid[0:40, 0:32]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 6)], axis=2)
    return (127 + 120 * waves).astype(np.uint8)[np.newaxis]


@pytest.mark.parametrize(
    ("name", "severity", "quality"),
    [("jpeg_compression", 1, 80), ("jpeg_compression", 5, 40), ("jpeg_recode", 4, 75)],
)
def test_jpeg_is_what_pillow_writes(photo, name, severity, quality):
    buffer = io.BytesIO()
    Image.fromarray(photo[0]).save(buffer, "JPEG", quality=quality)
    found = corrupt(photo, name, severity, ids=("a",))
    np.testing.assert_array_equal(found[0], np.asarray(Image.open(buffer)))


def test_pixelate_averages_blocks(photo):
    found = corrupt(photo, "pixelate", 2, ids=("a",), constants="imagenet")[0]
    blocks = photo[0].reshape(20, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found[::2, ::2], blocks, atol=1)
    np.testing.assert_array_equal(found[::2, ::2], found[1::2, 1::2])


def test_contrast_shrinks_the_distance_from_the_mean(photo):
    found = corrupt(photo, "contrast", 2, ids=("a",)).astype(float)
    mean = photo.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, mean + (photo - mean) * 0.5, atol=1)


def test_resizers_differ_and_nearest_most(photo):
    found = [corrupt(photo, "resize_filter", s, ids=("a",)).astype(int) for s in range(1, 6)]
    changes = [np.abs(f - photo).mean() for f in found]
    assert max(changes) == changes[4]
    assert max(changes) < 6
    assert len({f.tobytes() for f in found}) == 5


def test_elastic_moves_and_hardly_recolours(photo):
    found = corrupt(photo, "elastic_transform", 5, ids=("a",))
    assert (found != photo).mean() > 0.5
    assert abs(found.mean() - photo.mean()) < 8
