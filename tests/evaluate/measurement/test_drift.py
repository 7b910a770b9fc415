import numpy as np
import pytest
from scipy import stats

from embedkit.evaluate.measurement.novelty.drift import (
    TESTS,
    classifier,
    dimensions,
    mmd,
    score_shift,
)


def sample(rng, n, d=5, shift=0.0):
    return (rng.normal(size=(n, d)) + shift).astype(np.float32)


def reference_mmd(x, y, scale):
    """Gretton et al. 2012, equation 3, pair by pair."""

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / scale)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_mmd_is_the_permutation_test_of_the_unbiased_estimate():
    """The same permutations, with every estimate written out over pairs."""
    rng = np.random.default_rng(0)
    x, y = sample(rng, 8), sample(rng, 6, shift=0.5)
    pooled = np.concatenate([x, y]).astype(float)
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(pooled) for b in pooled[:i]]
    scale = np.median(pairs)
    again = np.random.default_rng(7)
    values = [reference_mmd(pooled[:8], pooled[8:], scale)]
    for _ in range(30):
        order = again.permutation(14)
        values.append(reference_mmd(pooled[order[:8]], pooled[order[8:]], scale))
    expected = np.mean(np.array(values) >= values[0] - 1e-12)
    assert mmd(x, y, np.random.default_rng(7), permutations=30) == pytest.approx(expected)


def test_dimensions_are_the_smallest_of_scipys_p_values_times_their_number():
    rng = np.random.default_rng(0)
    x, y = sample(rng, 80), sample(rng, 50)
    y[:, 2] += 0.7
    x, y = x.round(1), y.round(1)  # ties
    smallest = min(stats.ks_2samp(x[:, j], y[:, j]).pvalue for j in range(5))
    assert dimensions(x, y, rng) == pytest.approx(5 * smallest, rel=1e-12)


def test_the_scores_test_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    assert score_shift(x, y) == stats.ks_2samp(x, y).pvalue


@pytest.mark.parametrize("name", sorted(TESTS))
def test_a_shift_is_seen_and_the_same_images_are_not_one(name):
    rng = np.random.default_rng(0)
    assert TESTS[name](sample(rng, 100), sample(rng, 100, shift=1), rng) < 0.01
    same = np.full((20, 5), 0.5, np.float32)
    assert TESTS[name](same, same, rng) == 1


def alarms(test, n, m, trials, d=5):
    """Share of p values below 0.05 where nothing has changed."""
    rng = np.random.default_rng(0)
    pairs = ((sample(rng, n, d), sample(rng, m, d)) for _ in range(trials))
    return np.mean([test(x, y, rng) < 0.05 for x, y in pairs])


def too_often(rate, trials):
    """The p value of a true rate of at most 0.05."""
    return stats.binomtest(round(rate * trials), trials, 0.05, alternative="greater").pvalue


@pytest.mark.parametrize("name", sorted(TESTS))
def test_false_alarms_come_at_most_at_their_rate(name):
    rate = alarms(TESTS[name], 40, 20, 200)
    assert too_often(rate, 200) > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TESTS))
@pytest.mark.parametrize(("n", "m", "d"), [(200, 10, 5), (200, 200, 5), (100, 50, 64)])
def test_false_alarms_come_at_most_at_their_rate_whatever_the_sizes(name, n, m, d):
    trials = 1000
    rate = alarms(TESTS[name], n, m, trials, d)
    assert (
        stats.binomtest(round(rate * trials), trials, 0.05, alternative="greater").pvalue > 1e-3
    )


def test_a_classifier_sees_what_no_single_dimension_shows():
    """A rotation of correlated dimensions leaves every marginal as it is."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(400, 1))
    x = (common[:200] * [1, 1] + 0.1 * rng.normal(size=(200, 2))).astype(np.float32)
    y = x[:, ::-1] + np.array([0.15, -0.15], np.float32)
    assert classifier(x, y.copy(), rng) < 1e-6
    assert dimensions(x, y.copy(), rng) > 0.01
