"""Operations, policies and mixing against torchvision's and kornia's."""

import importlib
import sys
from types import ModuleType

import pytest
import torch

from embedkit.perturb.augmentations.cutmix import CutMix
from embedkit.perturb.operations import OPERATIONS, apply_operations
from embedkit.perturb.policies import POLICIES, RAND_AUGMENT, SIGNED, strength_of

pytestmark = pytest.mark.peer

NAMES = {
    "auto_contrast": "AutoContrast",
    "colour": "Color",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
}
MOVES = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}


def theirs(name):
    return NAMES.get(name, name.capitalize())


@pytest.fixture(scope="module")
def vision():
    """torchvision's transforms; beside a CPU torch its compiled operators are declared here."""
    library = None
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except ImportError:
        pytest.skip("torchvision is not installed")
    yield importlib.import_module("torchvision.transforms.v2")
    del library


def images(n=9):
    """Random images of 256 levels, which ``equalize`` rounds to in either code."""
    levels = torch.randint(256, (n, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    return levels / 255


def ours(name, strength, pixels):
    chosen = torch.full((len(pixels),), OPERATIONS.index(name))
    return apply_operations(pixels, chosen, torch.full((len(pixels),), strength))


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
@pytest.mark.parametrize("level", [0, 9, 21, 30])
def test_operations(vision: ModuleType, name, level):
    """Equal inside; at the edge torchvision weighs a pixel twice before it fills."""
    strength = strength_of(name, level, 31)
    kind = theirs(name)
    value = strength * 24 if kind == "TranslateX" else strength
    value = strength * 20 if kind == "TranslateY" else value
    pixels = images()
    for sign in (1, -1) if name in SIGNED else (1,):
        expected, covered = (
            vision.RandAugment()._apply_image_or_video_transform(
                given,
                kind,
                sign * value,
                interpolation=vision.InterpolationMode.BILINEAR,
                fill={torch.Tensor: fill},
            )
            for given, fill in ((pixels, [128 / 255] * 3), (torch.ones_like(pixels), [0.0] * 3))
        )
        inside = covered > 0.9999 if name in MOVES else torch.ones_like(covered).bool()
        assert inside.float().mean() > 0.5
        found = ours(name, sign * strength, pixels)
        torch.testing.assert_close(found[inside], expected[inside], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("ours_", "theirs_"), [("imagenet", "IMAGENET"), ("cifar10", "CIFAR10")]
)
def test_policies(vision: ModuleType, ours_, theirs_):
    """Names, probabilities, and the strengths that levels mean."""
    policy = getattr(vision.AutoAugmentPolicy, theirs_)
    transform = vision.AutoAugment(policy)
    published = transform._get_policies(policy)
    assert len(published) == len(POLICIES[ours_])
    for mine, expected in zip(POLICIES[ours_], published, strict=True):
        for (name, p, level), (kind, probability, magnitude) in zip(
            mine, expected, strict=True
        ):
            assert (theirs(name), p) == (kind, probability)
            if magnitude is None:
                continue
            table = transform._AUGMENTATION_SPACE[kind][0](10, 331, 331)
            value = float(table[magnitude])
            value = value / 331 if kind.startswith("Translate") else value
            assert strength_of(name, level, 10) == pytest.approx(value, abs=1e-5)


def test_the_space_of_rand_augment(vision: ModuleType):
    space = vision.RandAugment()._AUGMENTATION_SPACE
    assert {theirs(name) for name in RAND_AUGMENT} == set(space)
    assert {k for k, (_, signed) in space.items() if signed} == {theirs(n) for n in SIGNED}


def test_boxes_of_cutmix_are_as_large(vision: ModuleType):
    """Mean and spread of what is replaced, over many draws of the same Beta distribution.

    kornia keeps its boxes whole, so they are larger than the paper's, which the border cuts.
    """
    n = 2000
    pixels = ((torch.arange(n) + 1.0) / (n + 1)).view(-1, 1, 1, 1).expand(n, 1, 64, 64)
    pixels = pixels.contiguous()
    mixed = CutMix(p=1.0)(pixels, torch.Generator().manual_seed(0))
    share = (mixed != pixels).float().mean(dim=(1, 2, 3))
    transform = vision.CutMix(num_classes=2)
    torch.manual_seed(0)
    peer = torch.tensor([1 - transform.make_params([pixels])["lam_adjusted"] for _ in range(n)])
    assert share.mean().item() == pytest.approx(peer.mean().item(), abs=0.02)
    assert share.std().item() == pytest.approx(peer.std().item(), abs=0.02)
