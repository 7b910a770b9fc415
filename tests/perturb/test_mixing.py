"""Augmentations that mix images, and the targets that go with them."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Mixing, build_augmentation, mixed_views
from embedkit.perturb.augmentations.cutmix import CutMix
from embedkit.perturb.augmentations.mixup import Mixup
from embedkit.perturb.augmentations.resize_mix import ResizeMix

COUNT = 300


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(n=COUNT, size=(10, 14)):
    """Images of one value each, and their numbers one-hot: what is mixed in is visible."""
    values = (torch.arange(n, dtype=torch.float64) + 1) / (n + 1)
    return values.view(-1, 1, 1, 1).expand(n, 1, *size).clone(), torch.eye(n).double()


@pytest.mark.parametrize("step", [Mixup(0.5), CutMix(p=1.0), ResizeMix(p=1.0)])
def test_targets_follow_the_pixels(step):
    """On images of one value each, the mean of the result is the targets' mean value."""
    pixels, targets = flat()
    mixed, shares = step.mix(pixels, targets, seeded())
    assert isinstance(step, Mixing)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(COUNT).double())
    assert shares.min() >= 0
    assert ((shares > 0).sum(dim=1) <= 2).all()
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares @ pixels[:, 0, 0, 0])
    assert torch.equal(step(pixels, seeded()), mixed)
    partners = (shares - torch.diag(shares.diag())).argmax(dim=1)
    assert len(set(partners.tolist())) > COUNT / 3


@pytest.mark.parametrize("name", ["mixup", "cutmix", "resize_mix"])
def test_images_that_are_not_chosen_keep_their_targets(name):
    pixels, targets = flat(40)
    (step,) = build_augmentation([{"name": name, "p": 0.0}]).steps
    mixed, shares = step.mix(pixels, targets, seeded())
    assert torch.equal(mixed, pixels)
    assert torch.equal(shares, targets)


def test_shares_of_mixup_are_beta_distributed():
    """Of Beta(a, a): variance of 1 / (4 (2 a + 1)), seen here folded at one half."""
    for alpha in (0.3, 1.0, 4.0):
        pixels, targets = flat(2000, (1, 1))
        _, shares = Mixup(alpha).mix(pixels, targets, seeded(1))
        own = shares.diag()
        # An image that is its own partner keeps all of itself.
        away = own[own < 1] - 0.5
        assert away.min() >= 0
        assert (away**2).mean().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_cutmix_takes_a_rectangle_from_the_same_place():
    pixels = torch.rand(60, 3, 9, 12, generator=seeded(3))
    mixed, shares = CutMix(p=1.0).mix(pixels, torch.eye(60), seeded())
    sizes = []
    for image in range(60):
        other = int((shares[image] - shares[image, image] * torch.eye(60)[image]).argmax())
        taken = (mixed[image] != pixels[image]).any(dim=0)
        if other == image or not taken.any():
            continue
        rows, columns = taken.any(dim=1), taken.any(dim=0)
        assert taken[rows][:, columns].all()
        assert torch.equal(mixed[image][:, taken], pixels[other][:, taken])
        assert shares[image, other] == pytest.approx(taken.float().mean().item(), abs=1e-6)
        sizes.append(taken.float().mean().item())
    # Beta(1, 1) is even, less what is cut off at the border.
    assert 0.2 < np.mean(sizes) < 0.5
    assert min(sizes) < 0.1
    assert max(sizes) > 0.6


def test_resize_mix_shows_all_of_the_other_image():
    """A ramp made smaller is a steeper ramp with the same ends."""
    ramp = torch.linspace(0, 1, 16, dtype=torch.float64).expand(1, 16, 16)
    pixels = torch.stack([torch.full_like(ramp, 0.5), ramp]).repeat(20, 1, 1, 1)
    _, targets = flat(40)
    mixed, shares = ResizeMix(scale=(0.5, 0.5), p=1.0).mix(pixels, targets, seeded())
    seen = 0
    for image in range(0, 40, 2):
        partner = int(_partner(shares, image))
        if partner % 2 == 0:
            continue
        rows = (mixed[image, 0] != 0.5).any(dim=1).nonzero().squeeze()
        small = mixed[image, 0, rows[0]]
        inside = (small != 0.5).nonzero().squeeze()
        assert len(rows) == 8
        assert shares[image, partner] == pytest.approx(0.25)
        # Means of pairs of the ramp's 16 steps.
        expected = torch.linspace(0, 1, 16).view(8, 2).mean(dim=1).double()
        torch.testing.assert_close(
            small[inside[0] : inside[0] + 8], expected, atol=1e-6, rtol=0
        )
        seen += 1
    assert seen >= 5


def test_two_mixing_steps_compose():
    pixels, targets = flat(200)
    pipeline = build_augmentation([{"name": "mixup"}, {"name": "cutmix", "p": 1.0}])
    assert pipeline.mixes
    mixed, shares = pipeline.mix(pixels, targets, seeded())
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares @ pixels[:, 0, 0, 0])
    assert (shares > 0).sum(dim=1).max() > 2


def test_views_are_mixed_with_views_of_any_image():
    pixels, targets = flat(50)
    pipeline = build_augmentation([{"name": "mixup", "alpha": 1.0}])
    views, shares = mixed_views(pixels, targets, pipeline, 3, seeded())
    assert views.shape == (3, 50, 1, 10, 14)
    assert shares.shape == (3, 50, 50)
    torch.testing.assert_close(views.mean(dim=(2, 3, 4)), shares @ pixels[:, 0, 0, 0])
    assert not torch.equal(shares[0], shares[1])


def test_a_pipeline_that_mixes_nothing_leaves_targets():
    pixels, targets = flat(8)
    pipeline = build_augmentation([{"name": "noise", "p": 1.0}])
    assert not pipeline.mixes
    changed, shares = pipeline.mix(pixels, targets, seeded())
    assert torch.equal(shares, targets)
    assert torch.equal(changed, pipeline(pixels, seeded()))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Mixup, {"alpha": 0.0}),
        (Mixup, {"alpha": float("inf")}),
        (CutMix, {"alpha": -1.0}),
        (CutMix, {"alpha": float("inf")}),
        (ResizeMix, {"scale": (0.0, 0.5)}),
    ],
)
def test_what_cannot_be_is_refused(kind, values):
    with pytest.raises(InvalidInput, match="expected"):
        kind(**values)


def _partner(shares, image):
    others = shares[image].clone()
    others[image] = 0
    return others.argmax()
