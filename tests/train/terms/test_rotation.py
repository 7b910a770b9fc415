"""Quarter turns against numpy's."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.terms import quarter_turns


def test_turns_are_counter_clockwise(rng):
    view = rng.random(size=(2, 3, 4, 4))
    turned = quarter_turns(torch.tensor(view)).numpy()
    for turns in range(4):
        np.testing.assert_array_equal(turned[turns], np.rot90(view, turns, axes=(2, 3)))


def test_only_squares_keep_their_shape():
    with pytest.raises(InvalidInput, match="got 4 x 6"):
        quarter_turns(torch.zeros(1, 1, 4, 6))
