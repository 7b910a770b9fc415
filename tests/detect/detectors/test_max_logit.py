import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.max_logit import MaxLogit
from embedkit.errors import InvalidInput


def test_score_is_minus_the_largest_logit():
    known = Observation(
        np.zeros((2, 2), np.float32), logits=np.array([[2, 5, 1], [-3, -9, -4]], np.float32)
    )
    np.testing.assert_array_equal(MaxLogit().fit(known).score(known), [-5, 3])


def test_one_class_is_no_choice():
    one = Observation(np.zeros((2, 2), np.float32), logits=np.zeros((2, 1), np.float32))
    with pytest.raises(InvalidInput, match=r"logits \(n, c\) of at least 2 dimensions"):
        MaxLogit().fit(one)
