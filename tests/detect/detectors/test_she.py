import numpy as np

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.she import SHE


def observe(features, logits, labels=None):
    features = np.asarray(features, np.float32)
    return Observation(features, features, np.asarray(logits, np.float32), labels)


def test_patterns_are_means_of_correct_images():
    """Zhang et al. 2023, equation 8, on four images, one of them classified wrongly."""
    features = [[1, 0], [3, 0], [0, 2], [8, 8]]
    logits = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    fitted = SHE().fit(observe(features, logits, np.array([0, 0, 1, 0])))
    np.testing.assert_array_equal(fitted.patterns, [[2, 0], [0, 2], [0, 0]])
    scores = fitted.score(observe([[5, 1], [5, 1], [5, 1]], np.eye(3)))
    np.testing.assert_array_equal(scores, [-10, -2, 0])


def test_without_labels_the_predictions_are_the_classes():
    fitted = SHE().fit(observe([[0, 2], [8, 8]], [[0, 1], [0, 1]]))
    np.testing.assert_array_equal(fitted.patterns, [[0, 0], [4, 5]])
