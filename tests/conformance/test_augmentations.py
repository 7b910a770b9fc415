"""What every registered augmentation promises."""

import pickle

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import (
    Augmentation,
    Mixing,
    augmentations,
    build_augmentation,
)

NAMES = augmentations.names()
SIZES = [(1, 8, 8), (3, 32, 32), (3, 5, 9), (1, 28, 28), (3, 1, 1)]
# What changes images whatever p says.
ALWAYS = {"geometric": {"flip": 0.0}, "colour": {"greyscale": 0.0}}

# What takes from other images of the batch changes nothing where all are the same.
MIXING = {"batch_styles", "cutmix", "mixup"}


MIXES = [n for n in NAMES if isinstance(build_augmentation([{"name": n}]).steps[0], Mixing)]


def _make(name: str, **arguments: object) -> Augmentation:
    return build_augmentation([{"name": name, **arguments}]).steps[0]


def _images(n: int = 64, size: tuple[int, int, int] = (3, 16, 12)) -> torch.Tensor:
    return torch.rand(n, *size, generator=torch.Generator().manual_seed(5))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_promised_augmentations_are_there():
    assert {"geometric", "colour", "blur", "solarise", "noise", "erase"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_module_registers_its_own_name_and_describes_itself(name):
    assert augmentations.get(name).__module__ == f"embedkit.perturb.augmentations.{name}"
    assert augmentations.summary(name)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_images_and_others_do_not(name):
    augmentation, pixels = _make(name), _images()
    first = augmentation(pixels, _seeded(0))
    assert torch.equal(first, augmentation(pixels, _seeded(0)))
    assert not torch.equal(first, augmentation(pixels, _seeded(1)))


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_not_touched(name):
    state = torch.random.get_rng_state()
    _make(name)(_images(), _seeded(0))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_shape_dtype_and_range_are_kept(name, size):
    augmentation = _make(name, p=1.0)
    for pixels in (_images(16, size), torch.zeros(16, *size), torch.ones(16, *size)):
        changed = augmentation(pixels, _seeded(2))
        assert changed.shape == pixels.shape
        assert changed.dtype == pixels.dtype
        assert changed.min() >= 0
        assert changed.max() <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_input_is_left_alone_and_shares_no_memory_with_the_result(name, p):
    pixels = _images()
    before = pixels.clone()
    changed = _make(name, p=p)(pixels, _seeded(3))
    assert torch.equal(pixels, before)
    changed.zero_()
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", NAMES)
def test_probability_zero_changes_nothing(name):
    pixels = _images()
    changed = _make(name, p=0.0, **ALWAYS.get(name, {}))(pixels, _seeded(4))
    torch.testing.assert_close(changed, pixels, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_probability_is_per_image(name):
    pixels = _images(400)
    changed = _make(name, p=0.25, **ALWAYS.get(name, {}))(pixels, _seeded(5))
    touched = ((changed - pixels).abs().amax(dim=(1, 2, 3)) > 1e-4).sum()
    # 100 expected, standard deviation 8.7; a weak draw may leave a few below the threshold.
    assert 65 < touched < 135


@pytest.mark.parametrize("name", sorted(set(NAMES) - MIXING))
def test_every_image_gets_draws_of_its_own(name):
    arguments: dict[str, object] = {"fill": "noise"} if name == "erase" else {}
    pixels = _images(1).repeat(8, 1, 1, 1)
    if name == "solarise":
        arguments = {"p": 0.5}
    changed = _make(name, **{"p": 1.0, **arguments})(pixels, _seeded(6))
    assert not torch.allclose(changed, changed[:1].expand_as(changed), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_precision_and_memory_order_of_the_input_do_not_matter(name):
    pixels, augmentation = _images(8), _make(name, p=1.0)
    channels_last = pixels.contiguous(memory_format=torch.channels_last)
    expected = augmentation(pixels, _seeded(7))
    torch.testing.assert_close(augmentation(channels_last, _seeded(7)), expected)
    assert augmentation(pixels.double(), _seeded(7)).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_pickled_copy_is_equal_and_does_the_same(name):
    augmentation = _make(name)
    copy = pickle.loads(pickle.dumps(augmentation))
    assert copy == augmentation
    pixels = _images()
    assert torch.equal(copy(pixels, _seeded(8)), augmentation(pixels, _seeded(8)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_none_and_one(name, n):
    assert _make(name)(_images(n), _seeded(9)).shape == (n, 3, 16, 12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 3, 8, 8).half(),
    ],
    ids=["rank", "uint8", "half"],
)
def test_other_ranks_and_dtypes_are_refused(name, pixels):
    with pytest.raises(InvalidInput, match=r"expected float32 or float64 pixels .*, got torch"):
        _make(name)(pixels, _seeded(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_probabilities_out_of_range_are_refused(name, p):
    with pytest.raises(InvalidInput, match=r"expected p in \[0, 1\], got"):
        _make(name, p=p)


@pytest.mark.parametrize("name", MIXES)
def test_targets_are_mixed_as_the_pixels_are(name):
    augmentation, pixels = _make(name, p=0.5), _images(40)
    assert isinstance(augmentation, Mixing)
    mixed, shares = augmentation.mix(pixels, torch.eye(40), _seeded(10))
    assert torch.equal(mixed, augmentation(pixels, _seeded(10)))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(40))
    assert shares.min() >= 0
    untouched = (mixed == pixels).flatten(1).all(dim=1)
    assert untouched.any()
    assert torch.equal(shares[untouched], torch.eye(40)[untouched])


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_device_of_the_pixels_is_kept(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pixels, augmentation = _images().cuda(), _make(name)
    for generator in (torch.Generator("cuda").manual_seed(0), _seeded(0)):
        assert augmentation(pixels, generator).device == pixels.device
    # The same CPU generator draws the same parameters for either device.
    on_cpu = augmentation(pixels.cpu(), _seeded(0))
    there = augmentation(pixels, _seeded(0)).cpu()
    torch.testing.assert_close(there, on_cpu, rtol=0, atol=1e-4)
