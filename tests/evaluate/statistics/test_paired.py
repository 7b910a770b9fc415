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
    if found.n < 20:
        assert (found.ci, found.ci_method) == (None, "")
    else:
        assert found.ci[0] <= found.value <= found.ci[1]


@pytest.mark.parametrize("counts", [(30, 0, 0, 10), (0, 0, 40, 0), (0, 40, 0, 0)])
def test_models_that_disagree_on_no_image_or_on_all(counts):
    """No resample differs; what is bounded is the share of images like those that were seen."""
    found = mcnemar(*outcomes(*counts))
    least = stats.binomtest(40, 40).proportion_ci(0.95).low
    ends = found.value * least - (1 - least), found.value * least + (1 - least)
    assert found.ci == pytest.approx(ends)
    assert found.ci_method == "clopper_pearson"
    assert found.p_value == (1.0 if found.value == 0 else pytest.approx(2 / 2**40))


def test_errors_are_worse_where_true_is_not_good():
    right = outcomes(60, 20, 5, 15)
    wrong = [~model for model in right]
    found, reverse = mcnemar(*right), mcnemar(*wrong, true_is_good=False)
    assert (reverse.only_first, reverse.only_second) == (20, 5)
    assert reverse.value == pytest.approx(-found.value)
    assert found.p_value == reverse.p_value < 0.05
    for difference in (found, reverse):
        assert difference.better(difference.p_value) == "A"
        assert difference.better(0.05) is None


def test_few_or_equal_differences_have_no_bootstrap_interval():
    assert paired_mean(np.array([0.2]), np.array([0.9])).ci is None
    assert paired_mean(np.zeros(19), np.arange(19.0)).ci is None
    assert paired_mean(np.zeros(20), np.arange(20.0)).ci_method == "bootstrap"
    alike = np.arange(30.0)
    assert paired_mean(alike, alike).ci is None
    assert mcnemar(*outcomes(0, 0, 3, 0)).ci is None


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
    """Their equation 4: the variance of L = (1, -1) from the covariance of the components.

    Each side counts one image more, of the largest spread that its changes allow.
    """
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
    found = paired_auroc((known[0], novel[0]), (known[1], novel[1]))
    expected = parts[1][0].mean() - parts[0][0].mean()
    sizes, variances = (45, 60), []
    for n, covariance, side in zip(sizes, (s10, s01), (0, 1), strict=True):
        most = np.abs(parts[1][side] - parts[0][side]).mean() - expected**2
        variances.append((contrast @ covariance @ contrast * (n - 1) + most) / n / n)
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 44 + variances[1] ** 2 / 59)
    error, student = np.sqrt(sum(variances)), stats.t(freedom)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.p_value == pytest.approx(2 * student.sf(abs(expected) / error), rel=1e-9)
    half = student.ppf(0.975) * error
    assert found.ci == pytest.approx((expected - half, expected + half))
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


def test_paired_delong_alarms_no_more_often_with_few_images():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        known, novel = rng.normal(size=6), rng.normal(1, 1, size=4)
        noisy = [(known + rng.normal(size=6), novel + rng.normal(size=4)) for _ in range(2)]
        p_values.append(paired_auroc(*noisy).p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.05


@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_and_opposite_scores(n):
    """All images of the smaller set changed sides, or none: a coin tossed n times."""
    known, novel = np.arange(n + 4.0), np.arange(float(n)) + 99
    alike = paired_auroc((known, novel), (known, novel))
    least = stats.binomtest(n, n).proportion_ci(0.95).low
    assert (alike.p_value, alike.ci) == (1, pytest.approx((least - 1, 1 - least)))
    worst = paired_auroc((known, novel), (99 - known, 99 - novel))
    assert worst.value == -1
    assert worst.p_value == pytest.approx(stats.binomtest(0, n).pvalue)
    assert worst.ci == (-1, pytest.approx(1 - 2 * least))


def test_equal_changes_are_no_certainty():
    """Scores that tell nothing beside perfect ones: DeLong's own variance is 0."""
    blind = np.zeros(2), np.zeros(2)
    found = paired_auroc(blind, (np.array([0.0, 1]), np.array([2.0, 3])))
    assert found.value == 0.5
    assert found.p_value > 0.1
    assert found.ci[0] < 0


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
