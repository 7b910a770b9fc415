"""Censored medians and success curves, by hand and by simulation."""

from typing import Any

import numpy as np
import pytest

from embedkit.evaluate.measurement.survival import (
    censored_median,
    kaplan_meier,
    success_by_queries,
)


def test_median_of_uncensored_queries():
    queries = np.array([5, 1, 9, 7, 3])
    metric = censored_median(queries, np.ones(5, bool), 100)
    assert metric.value == 5
    assert metric.unit == "queries"
    assert metric.higher_is_better


def test_images_never_fooled_count_as_the_limit():
    queries = np.array([10, 100, 100, 20])
    success = np.array([True, False, True, True])
    assert censored_median(queries, success, 200).value == 60
    assert censored_median(queries, np.zeros(4, bool), 200).value == 200


def test_interval_covers_the_median_of_the_population():
    """95 % or a little more of samples of a known distribution; exact, so never far less."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        queries = rng.geometric(0.01, 51)
        found = censored_median(np.minimum(queries, 200), queries <= 200, 200)
        low, high = found.ci or (0, 0)
        covered += low <= 69 <= high
    assert 0.93 <= covered / 600 <= 0.995


@pytest.mark.parametrize("n", [1, 3, 5])
def test_fewer_than_six_images_have_no_interval(n):
    """Of five images all lie on one side of the median in 2 of 32 samples: 94 %, not 95 %."""
    metric = censored_median(np.arange(1, n + 1), np.ones(n, bool), 10)
    assert (metric.ci, metric.ci_method) == (None, "")
    assert metric.value == (n + 1) / 2


def test_six_images_have_the_interval_of_all():
    metric = censored_median(np.array([3, 1, 2, 6, 5, 4]), np.ones(6, bool), 10)
    assert (metric.ci, metric.ci_method) == ((1, 6), "order_statistic")


def test_curve_counts_images_fooled_so_far():
    runs = [
        ("radius 8", np.array([1, 4, 50, 50]), np.array([True, True, True, False])),
        ("radius 2", np.array([50] * 4), np.zeros(4, bool)),
    ]
    curve: Any = success_by_queries(runs, 50)
    at = dict(zip(curve["x"], curve["series"]["radius 8"]["y"], strict=True))
    assert (at[1], at[4], at[50]) == (0.25, 0.5, 0.75)
    assert set(curve["series"]["radius 2"]["y"]) == {0}
    series = curve["series"]["radius 8"]
    assert all(
        low <= y <= high
        for low, y, high in zip(series["lo"], series["y"], series["hi"], strict=True)
    )


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_curve_ends_at_the_limit(limit):
    curve: Any = success_by_queries([("all", np.array([1]), np.array([True]))], limit)
    assert curve["x"][0] == 1
    assert curve["x"][-1] == limit
    assert len(curve["x"]) <= 60


def test_kaplan_meier_is_the_product_over_those_at_risk():
    """By hand: 6 images; one is given up after 3 queries, another after 5."""
    queries = np.array([2, 3, 3, 4, 5, 9])
    success = np.array([True, True, False, True, False, True])
    times, standing, errors = kaplan_meier(queries, success)
    assert times.tolist() == [2, 3, 4, 9]
    expected = [5 / 6, 5 / 6 * 4 / 5, 5 / 6 * 4 / 5 * 2 / 3, 0]
    np.testing.assert_allclose(standing, expected)
    greenwood = np.cumsum([1 / (6 * 5), 1 / (5 * 4), 1 / (3 * 2)])
    np.testing.assert_allclose(errors[:3], standing[:3] * np.sqrt(greenwood))
    assert errors[3] == 0


def test_giving_up_early_does_not_pass_for_robustness():
    """Half of the images are given up at random; the estimate still finds the true share."""
    rng = np.random.default_rng(0)
    needed, given = rng.geometric(0.05, 4000), rng.integers(5, 60, 4000)
    times, standing, errors = kaplan_meier(np.minimum(needed, given), needed <= given)
    for at in (10, 20, 40):
        place = int(np.searchsorted(times, at, side="right")) - 1
        assert abs(standing[place] - 0.95**at) < 4 * errors[place]
