import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.beyond import Beyond
from embedkit.errors import InvalidInput

X, Y = [1.0, 0.0], [0.0, 1.0]


def observe(embeddings, views, labels=None):
    return Observation(
        np.array(embeddings, np.float32), views=np.array(views, np.float32), labels=labels
    )


def test_likeness_and_class_add_up():
    """Both terms by hand, with views at 0, 60 and 90 degrees."""
    half = [0.5, np.sqrt(3) / 2]
    known = observe([X, Y], [[X, half], [Y, Y]], np.array([0, 1]))
    fitted = Beyond().fit(known)
    assert fitted.gap == pytest.approx((0 + 0.5 + 0 + 0) / 4)
    # the view at 60 degrees is nearer to the other class
    expected = [0.25 / 0.125 + 0.5, 0]
    np.testing.assert_allclose(fitted.score(known), expected, atol=1e-6)
    far = observe([X], [[X, Y]])
    np.testing.assert_allclose(fitted.score(far), [0.5 / 0.125 + 0.5], rtol=1e-6)


def test_without_labels_only_the_likeness_counts():
    known = observe([X, Y], [[X, Y], [Y, X]])
    np.testing.assert_allclose(Beyond().fit(known).score(known), [1, 1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 0, 2), (2, 2), (2, 3, 5)])
def test_views_of_another_shape(shape):
    with pytest.raises(InvalidInput, match=r"expected views \(n, v, d\) of 2 dimensions"):
        Beyond().fit(observe([X, Y], np.zeros(shape)))
