"""Which patches are hidden: as many in every row, at random, alone or together."""

import pytest
import torch

from embedkit.train.terms import hide_blobs, hide_scattered


@pytest.mark.parametrize("hide", [hide_scattered, hide_blobs])
@pytest.mark.parametrize(
    ("grid", "share", "hidden"),
    [((4, 5), 0.75, 15), ((4, 4), 0.01, 1), ((2, 2), 0.99, 3), ((1, 2), 0.5, 1)],
)
def test_as_many_in_every_row(hide, grid, share, hidden):
    mask = hide(grid, 6, share, torch.Generator().manual_seed(0))
    assert mask.dtype == torch.bool
    assert mask.shape == (6, grid[0] * grid[1])
    assert mask.sum(dim=1).tolist() == [hidden] * 6


@pytest.mark.parametrize("hide", [hide_scattered, hide_blobs])
def test_the_generator_decides(hide):
    masks = [hide((4, 4), 5, 0.5, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_scattered_patches_are_hidden_equally_often():
    mask = hide_scattered((3, 4), 4000, 0.25, torch.Generator().manual_seed(0))
    often = mask.float().mean(dim=0)
    # Five standard deviations of 4,000 draws.
    assert (often - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
