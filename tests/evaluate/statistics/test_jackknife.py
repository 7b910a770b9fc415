"""Intervals by leaving out groups: by hand, and how often they hold what they should."""

import numpy as np
import pytest
from scipy import stats

from embedkit.evaluate.statistics import (
    GROUPS,
    jackknife_interval,
    jackknife_metric,
    random_groups,
)
from embedkit.measures.collapse import tolerance
from embedkit.measures.geometry import effective_rank, uniformity
from embedkit.measures.hubness import neighbours_of_each, occurrences, skewness
from embedkit.measures.similarity import linear_cka
from embedkit.measures.spectrum import decay, eigenvalues, participation_ratio
from embedkit.measures.without import (
    cka_without,
    hubness_without,
    measure_without,
    spectra_without,
    uniformity_without,
)


def test_groups_are_equal_and_follow_the_images_not_their_order():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**63, 103, dtype=np.uint64)
    groups = random_groups(keys)
    assert set(np.bincount(groups)) == {5, 6}
    order = rng.permutation(103)
    np.testing.assert_array_equal(random_groups(keys[order]), groups[order])


def test_of_a_mean_it_is_students_interval_of_the_groups_means():
    values = np.random.default_rng(0).normal(size=200)
    groups = np.arange(200) % GROUPS
    without = measure_without(lambda rows: values[rows].mean(), groups)
    low, high = jackknife_interval(values.mean(), without)
    means = np.array([values[groups == g].mean() for g in range(GROUPS)])
    half = stats.t.ppf(0.975, GROUPS - 1) * means.std(ddof=1) / np.sqrt(GROUPS)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_no_interval_where_it_would_mean_nothing():
    fine = np.arange(20.0)
    assert jackknife_metric(9.5, fine, 20).ci_method == "jackknife"
    for without, n in ((None, 100), (fine, 19), (np.where(fine == 3, np.nan, fine), 100)):
        metric = jackknife_metric(9.5, without, n)
        assert (metric.ci, metric.ci_method) == (None, "")
    assert jackknife_metric(0.1, fine, 20, least=0.0).ci[0] == 0


def embeddings(rng, n=160, d=8):
    """A mixture of four classes with uneven directions, the labels, and another view."""
    means = np.random.default_rng(5).normal(size=(4, d))
    labels = rng.integers(0, 4, n)
    z = means[labels] + 0.7 * rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.3
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    other = np.tanh(2 * z[:, : d // 2]) + 0.3 * rng.normal(size=(n, d // 2))
    return z, labels, other


MEASURES = {
    "uniformity": lambda z, y, w: uniformity(z),
    "rankme": lambda z, y, w: effective_rank(z),
    "participation_ratio": lambda z, y, w: participation_ratio(eigenvalues(z)),
    "decay": lambda z, y, w: decay(eigenvalues(z)),
    "hubness": lambda z, y, w: skewness(occurrences(neighbours_of_each(z, 10))),
    "cka": lambda z, y, w: linear_cka(z, w),
    "tolerance": lambda z, y, w: tolerance(z, y),
}


def left_out(z, labels, other, groups):
    """Every measure without each group, by the quick ways."""
    return {
        "uniformity": uniformity_without(z, groups),
        **spectra_without(z, groups),
        "hubness": hubness_without(neighbours_of_each(z, 30), groups, 10),
        "cka": cka_without(z, other, groups),
        "tolerance": measure_without(lambda r: tolerance(z[r], labels[r]), groups),
    }


def test_the_quick_ways_are_the_measures_of_what_is_left():
    rng = np.random.default_rng(3)
    z, labels, other = embeddings(rng)
    groups = rng.permutation(160) % GROUPS
    found = left_out(z, labels, other, groups)
    assert found.keys() == MEASURES.keys()
    for name, values in found.items():
        assert values.shape == (GROUPS,)
        for g in (0, 7, 19):
            rows = groups != g
            expected = MEASURES[name](z[rows], labels[rows], other[rows])
            assert values[g] == pytest.approx(expected, rel=1e-6), name


def test_intervals_hold_what_other_samples_give_on_average():
    """Nominal 95 %; with 150 samples a coverage of 0.90 is 2.8 standard errors below it."""
    samples = 150
    values = {name: np.empty(samples) for name in MEASURES}
    intervals = {name: np.empty((samples, 2)) for name in MEASURES}
    for sample in range(samples):
        rng = np.random.default_rng([1, sample])
        z, labels, other = embeddings(rng)
        groups = rng.permutation(len(z)) % GROUPS
        for name, without in left_out(z, labels, other, groups).items():
            value = MEASURES[name](z, labels, other)
            values[name][sample] = value
            intervals[name][sample] = jackknife_interval(value, without)
    for name, each in values.items():
        low, high = intervals[name].T
        held = ((low <= each.mean()) & (each.mean() <= high)).mean()
        assert held >= 0.9, name
        # Honest, and not by being wide: at most half as wide again as the true spread asks for.
        assert np.median(high - low) < 1.7 * 2 * 1.96 * each.std(), name
