import numpy as np
import pytest
from sklearn.covariance import OAS, EmpiricalCovariance, LedoitWolf

from embedkit.detect.covariance import (
    class_means,
    inverse_factor,
    ledoit_wolf,
    nearest_squared,
    oas,
    whitening,
)


def deviations(n, d):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) * np.linspace(0.1, 3, d)
    return x - x.mean(axis=0)


@pytest.mark.parametrize(("n", "d"), [(30, 50), (400, 8)])
@pytest.mark.parametrize(("ours", "theirs"), [(ledoit_wolf, LedoitWolf), (oas, OAS)])
def test_shrinkage_agrees_with_sklearn(n, d, ours, theirs):
    x = deviations(n, d)
    expected = theirs(assume_centered=True).fit(x).covariance_
    np.testing.assert_allclose(ours(x), expected, rtol=1e-10, atol=1e-14)


def test_nothing_to_shrink():
    for shrink in (ledoit_wolf, oas):
        np.testing.assert_array_equal(shrink(np.zeros((5, 3))), np.zeros((3, 3)))


@pytest.mark.parametrize("shrinkage", ["auto", "none", "ledoit_wolf", "oas"])
def test_whitening_is_a_root_of_the_inverse(shrinkage):
    x = deviations(60, 5)
    whiten = whitening(x, shrinkage, 100)
    kind = {"ledoit_wolf": LedoitWolf, "oas": OAS}.get(shrinkage, EmpiricalCovariance)
    expected = kind(assume_centered=True).fit(x).covariance_
    np.testing.assert_allclose(whiten.T @ whiten, np.linalg.inv(expected), rtol=1e-8)


def test_a_singular_matrix_has_no_factor():
    assert inverse_factor(np.ones((2, 2))) is None
    assert inverse_factor(np.diag([1.0, -1.0])) is None
    np.testing.assert_allclose(inverse_factor(np.diag([4.0, 1.0])), np.diag([0.5, 1.0]))


def test_class_means_with_gaps_among_the_labels():
    x = np.array([[0.0, 0], [2, 2], [10, 0]], np.float32)
    means, away = class_means(x, np.array([7, 7, 2]))
    np.testing.assert_array_equal(means, [[10, 0], [1, 1]])
    np.testing.assert_array_equal(away, [[-1, -1], [1, 1], [0, 0]])


def test_a_common_offset_costs_no_digits():
    x = np.array([[1e6, 1e6], [1e6 + 1, 1e6]], np.float32)
    distance = nearest_squared(x, np.array([[1e6, 1e6]]), np.eye(2))
    np.testing.assert_array_equal(distance, [0, 1])
