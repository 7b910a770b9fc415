"""RandAugment: as many operations as asked, of one strength, every one as often."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.rand_augment import RandAugment
from embedkit.perturb.operations import OPERATIONS, apply_operations
from embedkit.perturb.policies import RAND_AUGMENT, SIGNED, strength_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("operation", "level", "expected"),
    [
        ("identity", 9, 0.0),
        ("shear_x", 30, 0.3),
        ("translate_y", 15, 0.5 * 150 / 331),
        ("rotate", 9, 9.0),
        ("contrast", 10, 0.3),
        ("posterize", 9, 7.0),
        ("posterize", 30, 4.0),
        ("solarize", 9, 0.7),
        ("equalize", 9, 0.0),
    ],
)
def test_levels_of_31(operation, level, expected):
    assert strength_of(operation, level, 31) == pytest.approx(expected)


def test_the_fourteen_operations_of_the_paper():
    assert len(RAND_AUGMENT) == 14
    assert set(OPERATIONS) - set(RAND_AUGMENT) == {"invert"}


def test_one_operation_per_image_and_each_as_often():
    """What was done to an image is found by doing all of it."""
    pixels = torch.rand(1, 3, 12, 12, generator=seeded(1)).expand(1400, -1, -1, -1)
    changed = RandAugment(operations=1, magnitude=10)(pixels, seeded())
    candidates, names = [], []
    for name in RAND_AUGMENT:
        for sign in (1, -1) if name in SIGNED else (1,):
            chosen = torch.tensor([OPERATIONS.index(name)])
            strength = torch.tensor([sign * strength_of(name, 10, 31)])
            candidates.append(apply_operations(pixels[:1], chosen, strength)[0])
            names.append((name, sign))
    distance = torch.cdist(
        changed.flatten(1),
        torch.stack(candidates).flatten(1),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    assert distance.min(dim=1).values.max() < 1e-4
    found = [names[i] for i in distance.argmin(dim=1).tolist()]
    counts = {name: sum(n == name for n, _ in found) for name in RAND_AUGMENT}
    # 100 expected of each, with a standard deviation of 9.6.
    assert all(60 < count < 140 for count in counts.values()), counts
    signs = np.array([sign for name, sign in found if name in SIGNED])
    assert abs(signs.mean()) < 0.12


def test_operations_follow_each_other():
    pixels = torch.rand(200, 3, 12, 12, generator=seeded(1))
    once, twice = (RandAugment(operations=n)(pixels, seeded(2)) for n in (1, 2))
    different = ((once - twice).abs().amax(dim=(1, 2, 3)) > 1e-4).sum()
    assert 150 < different <= 200


def test_no_magnitude_leaves_what_has_a_strength():
    flat = torch.full((300, 1, 8, 8), 0.25)
    changed = RandAugment(operations=1, magnitude=0)(flat, seeded())
    torch.testing.assert_close(changed, flat, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "values", [{"operations": 0}, {"magnitude": 31.0}, {"magnitude": -1.0}]
)
def test_what_cannot_be_is_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        RandAugment(**values)
