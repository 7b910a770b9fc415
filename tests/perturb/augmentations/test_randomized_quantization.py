"""Randomized quantization: few values are left, in the order they had."""

from itertools import pairwise

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.randomized_quantization import RandomizedQuantization


def quantized(pixels, **arguments):
    augmentation = RandomizedQuantization(p=1.0, **arguments)
    return augmentation(pixels, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("intervals", [1, 2, 5])
def test_each_channel_has_at_most_so_many_values(intervals):
    pixels = torch.rand(6, 3, 10, 10, dtype=torch.float64)
    changed = quantized(pixels, intervals=intervals).flatten(2)
    counts = [len(channel.unique()) for image in changed for channel in image]
    assert max(counts) == intervals
    assert (changed >= pixels.flatten(2).amin(2, keepdim=True)).all()
    assert (changed <= pixels.flatten(2).amax(2, keepdim=True)).all()


def test_values_of_an_interval_become_one_value_of_it():
    """What ends up equal was contiguous, and the new value lies between its neighbours'."""
    pixels = torch.rand(1, 1, 20, 20, dtype=torch.float64)
    before = pixels.flatten()
    after = quantized(pixels, intervals=4).flatten()
    order = before.argsort()
    assert (after[order].diff() >= 0).all()
    groups = [before[after == value] for value in after.unique()]
    for left, right in pairwise(groups):
        assert left.max() < right.min()


def test_a_flat_channel_stays_as_it_is():
    pixels = torch.full((2, 1, 4, 4), 0.3)
    torch.testing.assert_close(quantized(pixels), pixels)


def test_many_intervals_change_little():
    pixels = torch.rand(4, 3, 8, 8)
    assert (quantized(pixels, intervals=1000) - pixels).abs().max() < 0.02


def test_no_intervals_are_refused():
    with pytest.raises(InvalidInput, match="at least 1 interval"):
        RandomizedQuantization(intervals=0)
