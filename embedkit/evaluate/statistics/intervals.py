"""Metrics and how sure they are: intervals for shares, ranks and whatever can be resampled.

Every interval is two-sided with 95 % coverage unless told otherwise. Seeds come from the
content that a number was computed from, so that whoever recomputes it gets the same interval.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = [
    "FEW",
    "LEVEL",
    "CiMethod",
    "Counts",
    "Interval",
    "Metric",
    "Metrics",
    "accuracy",
    "bootstrap",
    "clopper_pearson",
    "content_seed",
    "delong",
    "midranks",
    "resample_counts",
    "robust_accuracy",
    "variance_towards",
    "welch_freedom",
    "wilson",
]

Interval = tuple[float, float]
CiMethod = Literal[
    "",
    "bootstrap",
    "bootstrap_recentred",
    "clopper_pearson",
    "clopper_pearson_less_alpha",
    "clopper_pearson_smaller_set",
    "delong",
    "delong_paired",
    "draws_and_images",
    "jackknife",
    "mean_of_intervals",
    "normal",
    "order_statistic",
    "student_t",
    "wilson",
]
"""Where an interval comes from, as docs/evaluate.md explains; empty where there is none."""

Counts = npt.NDArray[np.int64]

LEVEL = 0.95
"""Coverage of every interval unless told otherwise."""

FEW = 20
"""Items below which a resample is no stand-in for a new sample: no bootstrap interval."""


@dataclass(frozen=True)
class Metric:
    """One number of a report.

    Attributes:
        value: The point estimate.
        ci: 95 % interval (low, high), or None where there is no sampling error to state or
            too few items to tell it.
        n: Items that the value was computed from.
        unit: ``fraction``, ``count``, ``cosine``, ... ; empty for a bare number.
        higher_is_better: Whether a larger value is the better one.
        ci_method: Where ``ci`` comes from; empty without one.
    """

    value: float
    ci: tuple[float, float] | None
    n: int
    unit: str = "fraction"
    higher_is_better: bool = True
    ci_method: CiMethod = ""

    def to_dict(self) -> dict[str, object]:
        """The form in ``report.json``; a value that is not finite becomes null."""
        return {
            "value": _finite(self.value),
            "ci": None if self.ci is None else [_finite(v) for v in self.ci],
            "n": int(self.n),
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "ci_method": self.ci_method,
        }


Metrics = dict[str, Metric]
"""Metrics by their path without the task's name."""


def wilson(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share (Wilson, 1927).

    Args:
        successes: 0 to n.
        n: Independent trials, at least 1.
        level: Coverage, in (0, 1).

    Raises:
        InvalidInput: If the counts are not possible.

    Example:
        >>> from embedkit.evaluate.statistics import wilson
        >>> [round(v, 4) for v in wilson(9, 10)]
        [0.5958, 0.9821]
    """
    _check_counts(successes, n)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return max(low, 0.0), min(high, 1.0)


def clopper_pearson(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    """The exact binomial interval, never too short (Clopper and Pearson, 1934).

    Raises:
        InvalidInput: If the counts are not possible.
    """
    _check_counts(successes, n)
    return _binomial(successes / n, n, level)


def accuracy(correct: npt.NDArray[np.bool_]) -> Metric:
    """The share of correct items with Wilson's interval, as a metric."""
    successes, n = int(np.count_nonzero(correct)), len(correct)
    interval = wilson(successes, n)
    return Metric(successes / n, interval, n, ci_method="wilson")


def robust_accuracy(correct: npt.NDArray[np.bool_]) -> Metric:
    """The share of items still correct under attack with the exact interval, as a metric."""
    successes, n = int(np.count_nonzero(correct)), len(correct)
    interval = clopper_pearson(successes, n)
    return Metric(successes / n, interval, n, ci_method="clopper_pearson")


@dataclass(frozen=True)
class Auroc:
    """The area under the ROC curve and its interval."""

    value: float
    ci: Interval
    method: CiMethod


def delong(known: Scores, novel: Scores, *, level: float = LEVEL) -> Auroc:
    """AUROC of novel above known images, with an interval from DeLong's variance.

    The variance comes from midranks (DeLong et al., 1988; Sun and Xu, 2014), so ties count
    half. A few images say little of their own spread, so each side also counts one imagined
    image of the largest spread that this area allows. The interval is the exact binomial one
    for as many trials as have that variance, at a Welch-Satterthwaite t quantile (Korn and
    Graubard, 1998), and never for fewer trials than the smaller set has images, which is the
    worst case. With hundreds of images on both sides this is DeLong's own interval; with one
    image on a side it is nearly [0, 1].

    Where the two sets do not overlap at all the smaller set's images are the trials, and the
    method says so.

    Args:
        known: (n,) novelty of in-distribution images.
        novel: (m,) novelty of images that should score higher.
        level: Coverage, in (0, 1).

    Raises:
        InvalidInput: If a set is empty or has a score that is not a number.
    """
    from scipy.special import stdtrit

    for scores in (known, novel):
        if scores.ndim != 1 or len(scores) == 0 or np.isnan(scores).any():
            raise InvalidInput(
                f"expected scores (n,), n >= 1, no NaN; got shape {scores.shape}"
            )
    m, n = len(novel), len(known)
    pooled = midranks(np.concatenate([novel, known]))
    # share of known images below each novel one, and of novel images above each known one
    above = (pooled[:m] - midranks(novel)) / n
    below = 1 - (pooled[m:] - midranks(known)) / m
    value = float(above.mean())
    if value in (0.0, 1.0):
        ci = _binomial(value, min(m, n), level)
        return Auroc(value, ci, "clopper_pearson_smaller_set")
    most = value * (1 - value)
    parts = variance_towards(above, most) / m, variance_towards(below, most) / n
    variance, freedom = sum(parts), welch_freedom(parts, (m, n))
    normal = NormalDist().inv_cdf(0.5 + level / 2)
    narrowing = (normal / float(stdtrit(freedom, 0.5 + level / 2))) ** 2
    trials = max(most / variance * narrowing, min(m, n))
    return Auroc(value, _binomial(value, trials, level), "delong")


def content_seed(*parts: str | int | npt.NDArray[np.generic]) -> int:
    """A seed from what a number is computed from: names, counts and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest()[:8], "little")


def resample_counts(n: int, rng: np.random.Generator) -> Counts:
    """How often each of n items occurs in one bootstrap sample, (n,) summing to n."""
    return np.bincount(rng.integers(0, n, n), minlength=n)


def bootstrap(
    statistic: Callable[[Sequence[Counts]], npt.NDArray[np.float64]],
    sizes: Sequence[int],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = LEVEL,
) -> list[Interval]:
    """Percentile intervals of several statistics from the same stratified resamples.

    Args:
        statistic: Takes how often each item of each stratum occurs, and gives (s,) numbers.
        sizes: Items in each stratum; each is resampled on its own.
        seed: Usually ``content_seed`` of the items.
        resamples: Bootstrap samples.
        level: Coverage, in (0, 1).

    Returns:
        One interval per statistic. NaN values of a statistic are left out of its percentiles.
    """
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [statistic([resample_counts(n, rng) for n in sizes]) for _ in range(resamples)]
    )
    tails = [(1 - level) / 2, 0.5 + level / 2]
    low, high = np.nanquantile(drawn, tails, axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _check_counts(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")


def _binomial(share: float, trials: float, level: float) -> Interval:
    """The exact binomial interval, continued to counts that are no whole numbers."""
    from scipy.special import betaincinv

    hits, misses, tail = share * trials, (1 - share) * trials, (1 - level) / 2
    low = 0.0 if share == 0 else float(betaincinv(hits, misses + 1, tail))
    high = 1.0 if share == 1 else float(betaincinv(hits + 1, misses, 1 - tail))
    return low, high


def variance_towards(values: npt.NDArray[np.float64], most: float) -> float:
    """The unbiased variance, drawn towards ``most`` by one further value."""
    return float(((values - values.mean()) ** 2).sum() + most) / len(values)


def welch_freedom(variances: Sequence[float], sizes: Sequence[int]) -> float:
    """Degrees of freedom of a sum of variances of means (Satterthwaite, 1946; Welch, 1947)."""
    pairs = zip(variances, sizes, strict=True)
    return sum(variances) ** 2 / sum(v**2 / max(size - 1, 1) for v, size in pairs)


def midranks(values: Scores) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
