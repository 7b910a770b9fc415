from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics import (
    delong,
    holm,
    mcnemar,
    paired_auroc,
    paired_mean,
    sign_flip,
)


def outcomes(both, lost, won, neither):
    """Right and wrong of two models in these counts."""
    first = [1] * both + [1] * lost + [0] * won + [0] * neither
    second = [1] * both + [0] * lost + [1] * won + [0] * neither
    return np.array(first, bool), np.array(second, bool)


@pytest.mark.parametrize(
    "counts", [(50, 3, 12, 5), (0, 7, 7, 0), (10, 0, 1, 0), (900, 40, 70, 9)]
)
def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements(counts):
    found = mcnemar(*outcomes(*counts))
    expected = stats.binomtest(counts[1], counts[1] + counts[2], 0.5).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert (found.only_first, found.only_second) == counts[1:3]
    assert found.value == pytest.approx((counts[2] - counts[1]) / sum(counts))
    assert found.ci[0] <= found.value <= found.ci[1]


def test_models_that_never_disagree():
    found = mcnemar(*outcomes(9, 0, 0, 3))
    assert (found.p_value, found.ci) == (1.0, (0.0, 0.0))


def test_mcnemars_interval_has_the_width_of_the_multinomial():
    """Var(second - first) = (p01 + p10 - (p01 - p10)^2) / n."""
    found = mcnemar(*outcomes(700, 90, 130, 80))
    expected = 1.96 * np.sqrt((0.22 - 0.04**2) / 1000)
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(expected, rel=0.08)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sign_flips_of_few_images_are_enumerated(values):
    differences = np.array(values, float)
    observed = abs(differences.sum())
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(values))]
    assert sign_flip(differences, seed=0) == pytest.approx(np.mean(np.array(sums) >= observed))


def test_many_sign_flips_agree_with_scipy():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.15, 1, size=200)
    expected = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    ).pvalue
    assert sign_flip(differences, seed=2) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("step", [0.05, 0.1, 1 / 3, 0.7, 0.9])
@pytest.mark.parametrize(("n", "plus"), [(16, 12), (20, 14), (40, 26), (100, 60)])
def test_sums_that_tie_with_the_observed_one_are_counted(step, n, plus, dtype):
    """Equal steps up and down: the sums are binomial, and many equal the observed one."""
    first = np.full(n, 0.3, dtype)
    second = first + np.where(np.arange(n) < plus, step, -step).astype(dtype)
    found = sign_flip(np.sort(second.astype(np.float64) - first), seed=1)
    assert found == pytest.approx(stats.binomtest(plus, n).pvalue, abs=0.015)


def test_unequal_steps_follow_their_exact_distribution():
    rng = np.random.default_rng(0)
    tenths = rng.choice([1, 2, 3], 25) * rng.choice([-1, 1], 25, p=[0.3, 0.7])
    chances = np.ones(1)
    for step in np.abs(tenths):
        shifted = np.zeros(len(chances) + 2 * step)
        shifted[: len(chances)] += chances / 2
        shifted[2 * step :] += chances / 2
        chances = shifted
    sums = np.arange(len(chances)) - np.abs(tenths).sum()
    exact = chances[np.abs(sums) >= abs(tenths.sum())].sum()
    before = np.full(25, 0.6)
    found = sign_flip(np.sort(before + tenths / 10 - before), seed=1)
    assert found == pytest.approx(exact, abs=0.01)


def test_the_paired_interval_is_narrower_than_that_of_two_samples():
    rng = np.random.default_rng(0)
    hardness = rng.normal(size=500)
    first, second = hardness + 0.1 * rng.normal(size=(2, 500))
    found = paired_mean(first, second + 0.02)
    error = np.std(second - first, ddof=1) / np.sqrt(500)
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.value == pytest.approx(np.mean(second + 0.02 - first))


def brute(known, novel):
    """DeLong et al. 1988: structural components over every pair."""
    wins = (novel[:, None] > known[None]) + 0.5 * (novel[:, None] == known[None])
    return wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize("rounding", [None, 0])
def test_paired_delong_follows_the_definition(rounding):
    """Their equation 4: the variance of L = (1, -1) from the covariance of the components."""
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=(2, 60)), rng.normal(0.8, 1, size=(2, 45))
    known[1] += known[0]
    novel[1] += novel[0]
    if rounding is not None:
        known, novel = known.round(rounding), novel.round(rounding)
    parts = [brute(known[i], novel[i]) for i in (0, 1)]
    s10 = np.cov(np.stack([p[0] for p in parts]))
    s01 = np.cov(np.stack([p[1] for p in parts]))
    contrast = np.array([-1.0, 1.0])
    error = np.sqrt(contrast @ (s10 / 45 + s01 / 60) @ contrast)
    found = paired_auroc((known[0], novel[0]), (known[1], novel[1]))
    expected = parts[1][0].mean() - parts[0][0].mean()
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(expected) / error), rel=1e-9)
    assert found.ci == pytest.approx((expected - 1.959964 * error, expected + 1.959964 * error))
    assert found.first == delong(known[0], novel[0]).value


def test_paired_delong_alarms_at_its_rate_and_beats_unpaired_intervals():
    """Two equally good scores of the same images: p is uniform."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        known, novel = rng.normal(size=80), rng.normal(1, 1, size=80)
        noisy = [(known + rng.normal(size=80), novel + rng.normal(size=80)) for _ in range(2)]
        p_values.append(paired_auroc(*noisy).p_value)
    alarms = np.mean(np.array(p_values) < 0.05)
    assert stats.binomtest(round(alarms * 400), 400, 0.05).pvalue > 0.001


def test_equal_and_opposite_scores():
    known, novel = np.arange(5.0), np.arange(5.0) + 9
    assert paired_auroc((known, novel), (known, novel)).p_value == 1
    worst = paired_auroc((known, novel), (novel, known))
    assert (worst.value, worst.p_value, worst.ci) == (-1.0, 0.0, (-1.0, -1.0))


def test_the_order_of_the_images_changes_nothing():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 120))
    order = rng.permutation(120)
    before, after = paired_mean(first, second), paired_mean(first[order], second[order])
    assert (before.ci, before.p_value) == (after.ci, after.p_value)
    right = first > 0, second > 0
    assert mcnemar(*right).ci == mcnemar(*(r[order] for r in right)).ci


def test_holm_follows_the_steps():
    """Holm's procedure on Wikipedia's four hypotheses, and with ties."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("sizes", [(3, 4), (0, 0)])
def test_sets_that_are_no_pairs(sizes):
    with pytest.raises(InvalidInput, match="two arrays"):
        paired_mean(*(np.zeros(n) for n in sizes))
    with pytest.raises(InvalidInput, match="at least 2 known and 2 novel"):
        paired_auroc((np.zeros(1), np.zeros(3)), (np.zeros(1), np.zeros(3)))
