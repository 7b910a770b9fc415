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
    assert found.ci == pytest.approx(
        (area - 1.959964 * error, area + 1.959964 * error), abs=1e-6
    )
    truth = np.repeat([0, 1], [70, 45])
    assert found.value == pytest.approx(roc_auc_score(truth, np.concatenate([known, novel])))
    assert found.method == "delong"


def test_delong_error_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=2000), rng.normal(1, 1, size=2000)
    low, high = delong(known, novel).ci
    areas = [delong(rng.choice(known, 2000), rng.choice(novel, 2000)).value for _ in range(400)]
    assert np.std(areas) == pytest.approx((high - low) / 2 / 1.96, rel=0.1)


def test_delong_covers_the_true_area():
    rng = np.random.default_rng(0)
    true = stats.norm.cdf(1 / np.sqrt(2))
    intervals = [delong(rng.normal(size=60), rng.normal(1, 1, 60)).ci for _ in range(1000)]
    covered = np.mean([low <= true <= high for low, high in intervals])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0)])
def test_no_overlap_is_not_certainty(sign, value):
    known, novel = np.arange(30.0), sign * np.arange(1000.0, 1020.0)
    found = delong(known, novel)
    assert found.value == value
    assert found.ci == wilson(round(20 * value), 20)
    assert found.method == "wilson_smaller_set"


def test_constant_scores_are_chance():
    found = delong(np.zeros(10), np.zeros(5))
    assert found.value == 0.5
    assert found.ci == (0.5, 0.5)


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
