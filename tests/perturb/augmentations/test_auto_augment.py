"""AutoAugment: the published pairs, each as often, with their probabilities."""

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import build_augmentation
from embedkit.perturb.augmentations.auto_augment import AutoAugment
from embedkit.perturb.operations import OPERATIONS
from embedkit.perturb.policies import POLICIES, strength_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("operation", "level", "expected"),
    [
        ("shear_x", 9, 0.3),
        ("translate_x", 9, 150 / 331),
        ("rotate", 2, 20 / 3),
        ("brightness", 7, 0.7),
        ("posterize", 7, 5.0),
        ("solarize", 5, 4 / 9),
    ],
)
def test_levels_of_10(operation, level, expected):
    assert strength_of(operation, level, 10) == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["cifar10", "imagenet"])
def test_the_tables_are_25_pairs_of_known_operations(policy):
    pairs = POLICIES[policy]
    assert len(pairs) == 25
    for name, probability, level in (step for pair in pairs for step in pair):
        assert name in OPERATIONS
        assert 0 <= probability <= 1
        assert 0 <= level <= 9


def expected_share(policy, name):
    """How often an operation happens to an image, from the table; at most once per pair."""
    pairs = POLICIES[policy]
    total = 0.0
    for pair in pairs:
        missed = 1.0
        for operation, probability, _ in pair:
            missed *= 1 - probability * (operation == name)
        total += 1 - missed
    return total / len(pairs)


def test_inversions_are_as_frequent_as_the_table_says():
    """Dark images of one value: of all operations, inversion alone makes them bright."""
    flat = torch.full((4000, 3, 4, 4), 0.1)
    changed = AutoAugment("imagenet")(flat, seeded())
    bright = (changed.mean(dim=(1, 2, 3)) > 0.85).float().mean().item()
    expected = expected_share("imagenet", "invert")
    assert expected == pytest.approx(3 * 0.6 / 25)
    assert bright == pytest.approx(expected, abs=0.015)


def test_policies_differ():
    pixels = torch.rand(50, 3, 8, 8, generator=seeded(1))
    first, second = (AutoAugment(policy)(pixels, seeded()) for policy in POLICIES)
    assert not torch.equal(first, second)


def test_another_policy_is_refused():
    with pytest.raises(InvalidInput, match="policy of augmentation 'auto_augment' as one of"):
        build_augmentation([{"name": "auto_augment", "policy": "svhn"}])
