"""Means over images: their interval holds the mean and nothing that cannot be."""

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from embedkit.evaluate.measurement.means import mean_metric


def test_an_interval_is_that_of_student_cut_at_the_bounds():
    values = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    plain = student.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert plain[0] < 0
    assert mean_metric(values).ci == pytest.approx(plain)
    cut = mean_metric(values, least=0, most=1)
    assert cut.ci == (0, pytest.approx(plain[1]))
    assert mean_metric(1 - values, least=0, most=1).ci == (pytest.approx(1 - plain[1]), 1)


@pytest.mark.parametrize("n", [2, 256])
def test_equal_values_are_no_certainty(n):
    """Student's interval has no width then; the binomial one of a share that is all has."""
    least = binomtest(n, n).proportion_ci(0.95).low
    ones = mean_metric(np.ones(n), least=0, most=1)
    assert (ones.ci, ones.ci_method) == ((pytest.approx(least), 1), "clopper_pearson")
    assert mean_metric(np.zeros(n), least=0, most=4).ci == (0, pytest.approx(4 * (1 - least)))
    half = mean_metric(np.full(n, 0.5), least=0, most=1).ci
    assert half == pytest.approx((least / 2, 1 - least / 2))
    unbounded = mean_metric(np.ones(n), least=0)
    assert (unbounded.ci, unbounded.ci_method) == (None, "")


def test_a_cut_interval_still_holds_the_value():
    above = np.full(5, 1 + 1e-12)
    low, high = mean_metric(above, least=0, most=1).ci
    assert low <= above.mean() <= high


def test_cutting_costs_no_coverage(rng):
    samples = rng.binomial(5, 0.05, (400, 30)) / 5
    held = [[], []]
    for sample in samples:
        for kept, bounds in zip(held, ({}, {"least": 0, "most": 1}), strict=True):
            low, high = mean_metric(sample, **bounds).ci
            kept.append(low <= 0.05 <= high)
    assert held[0] == held[1]
