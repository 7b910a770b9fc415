import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.solarise import Solarise


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_values_from_the_threshold_on_are_inverted(threshold, rng):
    pixels = rng.random((4, 3, 6, 6), dtype=np.float32)
    pixels[0, 0, 0] = threshold
    changed = Solarise(threshold, p=1.0)(torch.from_numpy(pixels), torch.Generator()).numpy()
    expected = np.where(pixels < np.float32(threshold), pixels, 1 - pixels)
    np.testing.assert_array_equal(changed, expected)


def test_whole_images_are_chosen(rng):
    pixels = torch.full((1000, 1, 2, 2), 0.75)
    changed = Solarise(p=0.2)(pixels, torch.Generator().manual_seed(0))
    per_image = changed.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert (per_image[:, 0] == 0.25).float().mean().item() == pytest.approx(0.2, abs=0.05)


def test_threshold_out_of_range_is_refused():
    with pytest.raises(InvalidInput, match="expected threshold"):
        Solarise(threshold=1.5)
