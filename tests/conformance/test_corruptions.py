"""What every registered corruption promises."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import embedkit.evaluate.corruptions
from embedkit.errors import InvalidInput
from embedkit.evaluate.corruption import SETS, corrupt, corruptions

NAMES = corruptions.names()
SHAPES = [(3, 32, 32, 3), (3, 28, 28, 1), (2, 20, 25, 3)]
UNORDERED = {"resize_filter"}
# The later constants of CIFAR-10-C move less and less smoothly; shear and turns wrap around.
NOT_MONOTONE = UNORDERED | {"elastic_transform", "saturate", "frost", "spatter", "glass_blur"}


def images(shape, seed=0):
    """Soft blobs, which every corruption changes."""
    _, h, w, c = shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    found = np.zeros(shape)
    for index in np.repeat(np.arange(len(found)), 6):
        cy, cx, s = rng.random() * h, rng.random() * w, 2 + 4 * rng.random()
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * s * s))
        found[index] += blob[..., None] * rng.random(c)
    return np.clip(found * 255 / found.max(), 0, 255).astype(np.uint8)


def ids(n):
    return tuple(f"image {i}" for i in range(n))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def severities(name):
    return range(1, len(corruptions.get(name).cifar) + 1)


def test_all_of_the_published_sets_are_there():
    assert set(NAMES) == {name for names in SETS.values() for name in names}
    assert [len(SETS[s]) for s in ("common", "validation", "mnist_c")] == [15, 4, 15]


def test_each_file_registers_its_own_name(name):
    modules = {p.stem for p in Path(embedkit.evaluate.corruptions.__path__[0]).glob("[!_]*.py")}
    assert name in modules
    kind = corruptions.get(name)
    assert kind.__module__ == f"embedkit.evaluate.corruptions.{name}"
    assert corruptions.summary(name).endswith(".")
    assert len(kind.cifar) == len(kind.imagenet) in (1, 5)
    assert {len(strength) for strength in kind.cifar + kind.imagenet} == {len(kind.cifar[0])}
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        kind().anything = 1


@pytest.mark.parametrize("shape", SHAPES, ids=["colour", "grey", "oblong"])
def test_shape_and_type_are_kept_and_the_images_left_alone(name, shape):
    given = images(shape)
    before = given.copy()
    changed = corrupt(given, name, 1, ids=ids(len(given)))
    assert changed.shape == shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(given, before)
    if (name, shape[3]) != ("saturate", 1):
        assert (changed != given).any()


def test_an_image_depends_on_itself_and_its_id_alone(name):
    given = images((5, 32, 32, 3))
    together = corrupt(given, name, 1, ids=ids(5), seed=3)
    turned = corrupt(given[[4, 1]], name, 1, ids=("image 4", "image 1"), seed=3)
    np.testing.assert_array_equal(turned, together[[4, 1]])


def test_the_seed_decides(name):
    given = images((4, 32, 32, 3))
    first, again, other = (corrupt(given, name, 1, ids=ids(4), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    drawn = {*SETS["common"], *SETS["mnist_c"], "speckle_noise"} - {
        *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "scale"),
        *("jpeg_compression", "stripe", "canny_edges"),
    }
    if name in drawn:
        assert (first != other).any()
    elif name != "spatter":
        np.testing.assert_array_equal(first, other)


def test_higher_severities_change_more(name):
    given = images((6, 32, 32, 3))
    changes = [
        np.abs(corrupt(given, name, s, ids=ids(6)).astype(int) - given).mean()
        for s in severities(name)
    ]
    if name not in NOT_MONOTONE and len(changes) > 1:
        # Draws differ between severities, so neighbours may change places.
        assert changes[0] < changes[-1]
        assert changes[0] < 1.05 * min(changes[1:], default=np.inf)
    assert min(changes) > 0.05


def test_no_images_are_no_trouble(name):
    assert corrupt(images((1, 8, 8, 3))[:0], name, 1, ids=()).shape == (0, 8, 8, 3)


def test_a_severity_that_there_is_not_is_refused(name):
    most = len(corruptions.get(name).cifar)
    for severity in (0, most + 1):
        with pytest.raises(InvalidInput, match=f"severity of {name} from 1 to {most}"):
            corrupt(images((1, 8, 8, 3)), name, severity, ids=("a",))
