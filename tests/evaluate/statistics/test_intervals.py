import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics import (
    accuracy,
    bootstrap,
    clopper_pearson,
    content_seed,
    delong,
    resample_counts,
    robust_accuracy,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (47, 50), (500, 1000)])
def test_shares_agree_with_scipy(successes, n):
    result = stats.binomtest(successes, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = result.proportion_ci(0.95, method=method)
        assert ours(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_intervals_hold_the_share_and_wilson_is_symmetric(counts):
    successes, n = counts
    for interval in (wilson, clopper_pearson):
        low, high = interval(successes, n)
        assert 0 <= low <= successes / n <= high <= 1
    low, high = wilson(successes, n)
    mirrored = wilson(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_impossible_counts(interval, counts):
    with pytest.raises(InvalidInput, match="expected 0 <= successes <= n"):
        interval(*counts)


def test_accuracies_as_metrics():
    correct = np.array([True, True, False, True])
    assert accuracy(correct).ci == wilson(3, 4)
    assert robust_accuracy(correct).ci == clopper_pearson(3, 4)
    assert (accuracy(correct).value, accuracy(correct).n) == (0.75, 4)
    with pytest.raises(InvalidInput, match="n >= 1"):
        accuracy(np.zeros(0, bool))


def brute_delong(known, novel):
    """DeLong et al. 1988: structural components written out over every pair."""
    wins = (novel[:, None] > known[None]) + 0.5 * (novel[:, None] == known[None])
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    variance = np.var(v10, ddof=1) / len(novel) + np.var(v01, ddof=1) / len(known)
    return wins.mean(), np.sqrt(variance)


@pytest.mark.parametrize("rounding", [None, 0])
def test_delong_follows_the_definition(rounding):
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=70), rng.normal(0.6, 1.5, size=45)
    if rounding is not None:  # many ties
        known, novel = known.round(rounding), novel.round(rounding)
    area, error = brute_delong(known, novel)
    found = delong(known, novel)
    assert found.value == pytest.approx(area, abs=1e-12)
    low, high = found.ci
    assert low < area < high
    assert high - low == pytest.approx(2 * 1.959964 * error, rel=0.1)
    truth = np.repeat([0, 1], [70, 45])
    assert found.value == pytest.approx(roc_auc_score(truth, np.concatenate([known, novel])))
    assert found.method == "delong"


def test_delong_error_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=2000), rng.normal(1, 1, size=2000)
    low, high = delong(known, novel).ci
    areas = [delong(rng.choice(known, 2000), rng.choice(novel, 2000)).value for _ in range(400)]
    assert np.std(areas) == pytest.approx((high - low) / 2 / 1.96, rel=0.1)


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.5])
def test_large_sets_have_the_plain_interval(shift):
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=2000), rng.normal(shift, 1, size=1500)
    area, error = brute_delong(known, novel)
    plain = area - 1.959964 * error, area + 1.959964 * error
    assert delong(known, novel).ci == pytest.approx(plain, abs=0.1 * error)


def coverage(n, m, shift, spread, trials):
    """How often the interval holds the true area of two normal distributions."""
    rng = np.random.default_rng(m)
    true = stats.norm.cdf(shift / np.hypot(1, spread))
    found = [delong(rng.normal(size=n), rng.normal(shift, spread, m)).ci for _ in range(trials)]
    return np.mean([low <= true <= high for low, high in found])


def test_the_interval_covers_the_true_area():
    assert 0.93 <= coverage(60, 60, 1, 1, 1000) <= 0.985


@pytest.mark.parametrize("m", [1, 2, 3, 5, 10, 50])
def test_the_interval_covers_the_true_area_with_few_novel_images(m):
    assert coverage(500, m, 1, 1, 200) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 2, 3, 5, 10, 20, 50])
@pytest.mark.parametrize("n", [10, 500])
@pytest.mark.parametrize(("shift", "spread"), [(0, 1), (1, 1), (2, 1), (1, 3)])
def test_the_interval_covers_the_true_area_whatever_the_sizes(n, m, shift, spread):
    assert coverage(n, m, shift, spread, 2000) >= 0.93


def test_one_image_says_next_to_nothing():
    known = np.random.default_rng(0).normal(size=500)
    low, high = delong(known, np.array([1.0])).ci
    assert low < 0.05
    assert high > 0.95


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0)])
def test_no_overlap_is_not_certainty(sign, value):
    known, novel = np.arange(30.0), sign * np.arange(1000.0, 1020.0)
    found = delong(known, novel)
    assert found.value == value
    assert found.ci == clopper_pearson(round(20 * value), 20)
    assert found.method == "clopper_pearson_smaller_set"


def test_constant_scores_are_chance():
    found = delong(np.zeros(10), np.zeros(5))
    assert found.value == 0.5
    assert found.ci[0] < 0.5 < found.ci[1]
    low, high = delong(np.zeros(2000), np.zeros(2000)).ci
    assert high - low < 0.01


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([np.nan]), np.zeros((2, 2))])
def test_delong_refuses(bad):
    with pytest.raises(InvalidInput, match="expected scores"):
        delong(np.zeros(3), bad)


def test_content_seed_depends_on_every_part():
    array = np.arange(4.0)
    seeds = [
        content_seed("a", 3, array),
        content_seed("b", 3, array),
        content_seed("a", 4, array),
        content_seed("a", 3, array + 1),
        content_seed("a3", array),
    ]
    assert len(set(seeds)) == len(seeds)
    assert content_seed("a", 3, array) == seeds[0]


def test_resampling_keeps_the_size():
    counts = resample_counts(50, np.random.default_rng(0))
    assert counts.shape == (50,)
    assert counts.sum() == 50


def test_bootstrap_of_a_mean_has_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)

    def mean(counts):
        return np.array([(counts[0] * values).sum() / 400, np.nan])

    (low, high), _ = bootstrap(lambda c: np.append(mean(c)[:1], 0), (400,), seed=1)
    assert (high - low) / 2 / 1.96 == pytest.approx(values.std() / 20, rel=0.08)
    again, _ = bootstrap(lambda c: np.append(mean(c)[:1], 0), (400,), seed=1)
    assert again == (low, high)
