"""Two-sample tests on embeddings: do new images come from where the reference came from?

Each test gives a p value that is uniform (or larger) if nothing has changed, whatever the
distribution: by permutation of the pooled images, by held-out ranks, or by Kolmogorov and
Smirnov's distribution-free statistic.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from embedkit.types import Embeddings, Scores

__all__ = ["TESTS", "Test", "classifier", "dimensions", "mmd", "score_shift"]

Float64 = npt.NDArray[np.float64]
Test = Callable[[Embeddings, Embeddings, np.random.Generator], float]
"""From the reference (n, d), the new images (m, d) and a generator to a p value."""

_PERMUTATIONS = 199


def mmd(
    reference: Embeddings,
    new: Embeddings,
    rng: np.random.Generator,
    *,
    permutations: int = _PERMUTATIONS,
) -> float:
    """Maximum mean discrepancy with a permutation null (Gretton et al., 2012).

    The unbiased estimate MMD^2_u (lemma 6) under the kernel exp(-||x - y||^2 / s^2), with s the
    median distance of all pooled pairs. Membership is permuted over the pooled images, so that
    both samples vary under the null.

    Args:
        reference: (n, d), n at least 2.
        new: (m, d), m at least 2.
        rng: Of the permutations.
        permutations: How many.

    Returns:
        The p value, from 1 / (permutations + 1) to 1.
    """
    pooled = np.concatenate([reference, new]).astype(np.float64)
    kernel = _kernel(pooled)
    n, total = len(reference), len(pooled)
    orders = np.stack(
        [np.arange(total), *(rng.permutation(total) for _ in range(permutations))]
    )
    member = np.zeros((len(orders), total))
    np.put_along_axis(member, orders[:, :n], 1.0, axis=1)
    values = _unbiased(kernel, member, n, total - n)
    # Rounding must not turn a tie with the observed value into a miss.
    reached = np.count_nonzero(values >= values[0] - 1e-12)
    return float(reached / len(values))


def classifier(reference: Embeddings, new: Embeddings, rng: np.random.Generator) -> float:
    """Classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017), by ranks.

    Fisher's discriminant, ridged, is fitted on one half of each sample; the p value is the
    one-sided Mann-Whitney one of its scores on the other halves.

    Args:
        reference: (n, d), n at least 4.
        new: (m, d), m at least 4.
        rng: Of the halves.
    """
    from scipy.stats import mannwhitneyu

    halves = [
        (rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]])
        for rows, order in ((r, rng.permutation(len(r))) for r in (reference, new))
    ]
    (ref_fit, ref_test), (new_fit, new_test) = halves
    means = [part.mean(axis=0, dtype=np.float64) for part in (ref_fit, new_fit)]
    away = np.concatenate([ref_fit - means[0], new_fit - means[1]])
    covariance = away.T @ away / len(away)
    ridge = 0.1 * float(np.trace(covariance)) / len(covariance) + 1e-12
    direction = np.linalg.solve(
        covariance + ridge * np.eye(len(covariance)), means[1] - means[0]
    )
    scores = [part @ direction for part in (ref_test, new_test)]
    if np.ptp(np.concatenate(scores)) == 0:
        return 1.0
    return float(mannwhitneyu(scores[1], scores[0], alternative="greater").pvalue)


def dimensions(reference: Embeddings, new: Embeddings, rng: np.random.Generator) -> float:
    """Kolmogorov and Smirnov's test of every dimension, corrected for their number.

    With samples of one size the smallest p value is that of the largest distance, so that is
    the only one computed; times d (Bonferroni).

    Args:
        reference: (n, d).
        new: (m, d).
        rng: Not used; the other tests draw from it.
    """
    del rng
    distances = _distances(reference, new)
    return min(1.0, _smirnov(distances.max(), len(reference), len(new)) * len(distances))


def score_shift(reference: Scores, new: Scores) -> float:
    """Kolmogorov and Smirnov's test of a novelty score; the p value.

    Args:
        reference: (n,) scores of images that the detector was not fitted on.
        new: (m,) scores.
    """
    distance = _distances(reference[:, np.newaxis], new[:, np.newaxis])[0]
    return _smirnov(distance, len(reference), len(new))


TESTS: dict[str, Test] = {"mmd": mmd, "classifier": classifier, "dimensions": dimensions}
"""The tests of the embeddings themselves, by name."""


def _smirnov(distance: float, n: int, m: int) -> float:
    """The p value of Kolmogorov and Smirnov's test of samples of n and m.

    Without ties it depends on the distance alone, which is a multiple of 1 / (n m).
    """
    return _smirnov_of(round(distance * n * m), n, m)


@lru_cache(maxsize=4096)
def _smirnov_of(steps: int, n: int, m: int) -> float:
    from scipy.stats import ks_2samp

    # Any two samples at this distance: i of n and j of m are low, with i / n - j / m as wanted.
    low = next(i for i in range(n + 1) if (i * m - steps) % n == 0 and i * m >= steps)
    other = (low * m - steps) // n
    samples = [np.arange(count) >= few for count, few in ((n, low), (m, other))]
    return float(ks_2samp(*(s.astype(float) for s in samples)).pvalue)


def _kernel(pooled: Float64) -> Float64:
    """The Gaussian kernel of all pairs, at their median distance."""
    squares = np.einsum("nd,nd->n", pooled, pooled)
    distances = np.maximum(squares[:, None] + squares - 2 * pooled @ pooled.T, 0)
    np.fill_diagonal(distances, 0)
    scale = float(np.median(distances[~np.tri(len(pooled), dtype=bool)]))
    if scale == 0:
        # Most images are copies of one: then the median says nothing.
        positive = distances[distances > 0]
        scale = float(positive.mean()) if positive.size else 1.0
    return np.asarray(np.exp(-distances / scale))


def _unbiased(kernel: Float64, member: Float64, n: int, m: int) -> Float64:
    """MMD^2_u for each row of memberships (p, n + m), 1 for the first sample."""
    other = 1 - member
    diagonal = np.diagonal(kernel)
    # One product gives all three sums: those of the rows and of everything are known.
    inside = np.einsum("pi,pi->p", member @ kernel, member)
    rows = member @ kernel.sum(axis=1)
    across, rest = rows - inside, float(kernel.sum()) - 2 * rows + inside
    within = inside - member @ diagonal
    beyond = rest - other @ diagonal
    return np.asarray(within / (n * (n - 1)) + beyond / (m * (m - 1)) - 2 * across / (n * m))


def _distances(reference: npt.NDArray[np.floating], new: npt.NDArray[np.floating]) -> Float64:
    """The largest difference of the two distribution functions, per dimension."""
    n, m = len(reference), len(new)
    pooled = np.concatenate([reference, new])
    order = np.argsort(pooled, axis=0, kind="stable")
    steps = np.where(order < n, 1 / n, -1 / m)
    ordered = np.take_along_axis(pooled, order, axis=0)
    gaps = np.abs(np.cumsum(steps, axis=0))
    # Within a group of equal values only the last one is a point of the functions.
    last = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, pooled.shape[1]), bool)])
    return np.asarray(np.where(last, gaps, 0).max(axis=0))
