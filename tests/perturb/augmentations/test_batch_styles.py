"""Batch styles: one style for all, and what is shown stays."""

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.batch_styles import BatchStyles


def images(n=6, channels=3):
    generator = torch.Generator().manual_seed(3)
    pixels = 0.3 + 0.4 * torch.rand(n, channels, 16, 16, generator=generator)
    # Styles that differ: another brightness per image and channel.
    return (pixels * (0.7 + 0.1 * torch.arange(n)).view(-1, 1, 1, 1)).double().clamp(0, 1)


def styled(pixels, seed=0, **arguments):
    values = {"share": (0.1, 0.1), "styles": 1, **arguments}
    return BatchStyles(**values)(pixels, torch.Generator().manual_seed(seed))


def test_all_images_get_the_mean_of_one_of_them():
    """The amplitude at frequency 0 is the mean: clipping changes it little here."""
    pixels = images()
    means = styled(pixels).mean(dim=(2, 3))
    torch.testing.assert_close(means, means[:1].expand_as(means), rtol=0.02, atol=0)
    givers = (means[0] - pixels.mean(dim=(2, 3))).abs().amax(dim=1)
    assert givers.min() < 0.02


def test_high_frequencies_and_all_phases_stay():
    pixels = images() * 0.5 + 0.2
    before, after = torch.fft.fft2(pixels), torch.fft.fft2(styled(pixels))
    torch.testing.assert_close(after[..., 3:14, 3:14], before[..., 3:14, 3:14])
    turned = (after / before).angle()
    assert turned.abs().max() < 1e-6


def test_each_part_of_the_batch_has_its_own_style():
    pixels = images(8)
    for seed in range(4):
        means = styled(pixels, seed, styles=2).mean(dim=(1, 2, 3))
        if (means[0] - means[4]).abs() > 0.05:
            break
    assert (means[0] - means[4]).abs() > 0.05
    torch.testing.assert_close(means[:4], means[:1].expand(4), rtol=0.02, atol=0)


def test_a_share_of_one_leaves_phases_alone():
    pixels = images() * 0.2 + 0.4
    after = torch.fft.fft2(styled(pixels, share=(1.0, 1.0))).abs()
    assert (after.std(dim=0) / after.mean(dim=0)).median() < 0.2


@pytest.mark.parametrize("values", [{"styles": 0}, {"share": (0.5, 0.1)}])
def test_what_cannot_be_is_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        BatchStyles(**values)
