"""Our corruptions against imagecorruptions (the constants of ImageNet-C), on the same images.

imagecorruptions-imaug 1.1.5 works with current libraries; 1.1.2 of imagecorruptions does not.
"""

import numpy as np
import pytest

from embedkit.evaluate.corruption import corrupt

peer = pytest.importorskip("imagecorruptions")

pytestmark = pytest.mark.peer

SEVERITIES = (1, 3, 5)


@pytest.fixture(scope="module")
def photo():
    """Shapes, edges and shades at 224 pixels."""
    y, x = np.mgrid[0:224, 0:224]
    image = np.stack([x / 2, y / 2, (x + y) / 4], axis=2) + 40
    image[(x - 80) ** 2 + (y - 90) ** 2 < 40**2] = (220, 60, 40)
    image[140:200, 120:210] = (30, 90, 200)
    image += 12 * np.sin(x / 3)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def ours(photo, name, severity, draws=1):
    ids = tuple(map(str, range(draws)))
    batch = np.repeat(photo[np.newaxis], draws, axis=0)
    return corrupt(batch, name, severity, ids=ids, constants="imagenet").astype(float)


def theirs(photo, name, severity, draws=1):
    np.random.seed(0)
    return np.stack(
        [peer.corrupt(photo, corruption_name=name, severity=severity) for _ in range(draws)]
    ).astype(float)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("brightness", 1),
        ("contrast", 1),
        ("saturate", 1),
        ("jpeg_compression", 1),
        ("pixelate", 1),
        ("gaussian_blur", 1),
        ("defocus_blur", 2),
        ("zoom_blur", 3),
    ],
)
def test_without_chance_they_agree_to_a_grey_level(photo, name, severity, levels):
    gap = np.abs(ours(photo, name, severity) - theirs(photo, name, severity))
    assert np.quantile(gap, 0.99) <= levels
    assert gap.mean() < 0.7


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"]
)
def test_noise_has_their_moments(photo, name, severity):
    pair = [make(photo, name, severity, draws=6) - photo for make in (ours, theirs)]
    assert pair[0].mean() == pytest.approx(pair[1].mean(), abs=0.3)
    assert pair[0].std() == pytest.approx(pair[1].std(), rel=0.01)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("motion_blur", 0.25), ("snow", 0.25), ("fog", 0.3), ("glass_blur", 0.25)],
)
def test_where_chance_decides_they_change_as_much(photo, name, severity, tolerance):
    size = [
        np.abs(make(photo, name, severity, draws=6) - photo).mean() for make in (ours, theirs)
    ]
    assert size[0] == pytest.approx(size[1], rel=tolerance)
