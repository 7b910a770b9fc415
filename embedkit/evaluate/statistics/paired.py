"""Tests between two models that saw the same images: pairs, so that hard images cancel out.

Every result is that of the second model less that of the first. None depends on the order of
the images: they are sorted by their values before any random draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics.constant import constant_interval
from embedkit.evaluate.statistics.intervals import (
    FEW,
    LEVEL,
    CiMethod,
    Interval,
    bootstrap,
    content_seed,
    midranks,
    variance_towards,
    welch_freedom,
)
from embedkit.types import Scores

__all__ = ["Difference", "holm", "mcnemar", "paired_auroc", "paired_mean", "sign_flip"]

Float64 = npt.NDArray[np.float64]

_MOST_EXACT = 2**14
# Items kept as float32 are off by this much, and no tie between sums must become a miss.
_ROUNDING = 1e-6
_BLOCK = 100
_SIGNIFICANT = 0.05
_EXACT: Final = "clopper_pearson"
_DELONG: Final = "delong_paired"


@dataclass(frozen=True)
class Difference:
    """What changed from the first model to the second.

    Attributes:
        first: The first model's value.
        second: The second's.
        ci: 95 % interval of second - first; None where there are too few items to tell it.
        p_value: Of no difference, two-sided.
        test: ``mcnemar_exact``, ``sign_flip`` or ``delong_paired``.
        n: Items that both models saw.
        only_first: Items that only the first had right, where items are right or wrong.
        only_second: Items that only the second had right.
        ci_method: Where ``ci`` comes from; empty without one.
        higher_is_better: Whether the larger value is the better one.
    """

    first: float
    second: float
    ci: Interval | None
    p_value: float
    test: str
    n: int
    only_first: int | None = None
    only_second: int | None = None
    ci_method: CiMethod = ""
    higher_is_better: bool = True

    @property
    def value(self) -> float:
        """The second less the first."""
        return self.second - self.first

    def better(self, p_value: float) -> Literal["A", "B"] | None:
        """Which model is better, the first (A) or the second (B); None if p is 0.05 or more.

        Args:
            p_value: The own, or the one adjusted for all that is compared.
        """
        if p_value >= _SIGNIFICANT or self.value == 0:
            return None
        return "B" if (self.value > 0) == self.higher_is_better else "A"


def mcnemar(
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    *,
    true_is_good: bool = True,
    resamples: int = 2000,
) -> Difference:
    """Compare two shares of right answers by the images on which the models disagree.

    If neither is better, each disagreement is a fair coin (McNemar, 1947): the p value is the
    exact two-sided binomial one. The interval is that of :func:`paired_mean`.

    Args:
        first: (n,) whether the first model is right.
        second: (n,) whether the second is.
        true_is_good: False if the arrays say instead which images are wrong; the shares are
            those of wrong images then, and the counts still of right ones.
        resamples: Bootstrap samples of the interval.

    Raises:
        InvalidInput: If the sets differ in size or are empty.
    """
    _check(first, second)
    lost = int(np.count_nonzero(first & ~second))
    won = int(np.count_nonzero(second & ~first))
    found = paired_mean(
        first.astype(np.float64), second.astype(np.float64), most=1, resamples=resamples
    )
    p_value = _two_sided_coin(min(lost, won), lost + won)
    if not true_is_good:
        lost, won = won, lost
    return replace(
        found,
        p_value=p_value,
        test="mcnemar_exact",
        only_first=lost,
        only_second=won,
        higher_is_better=true_is_good,
    )


def paired_mean(
    first: Float64, second: Float64, *, most: float = math.inf, resamples: int = 2000
) -> Difference:
    """Compare two means over the same images.

    The p value is that of flipping the sign of each image's difference; the interval a
    bootstrap over images. Below 20 images there is none, and where every image has the same
    difference it is that of ``constant_interval``.

    Args:
        first: (n,) numbers of the first model.
        second: (n,) numbers of the second.
        most: The largest difference that an image can have, either way.
        resamples: Bootstrap samples of the interval.

    Raises:
        InvalidInput: If the sets differ in size or are empty, or a value is not finite.
    """
    _check(first, second)
    differences = np.sort(np.asarray(second, np.float64) - np.asarray(first, np.float64))
    if not np.isfinite(differences).all():
        raise InvalidInput("expected finite values, got some that are not")
    n = len(differences)
    seed = content_seed("paired", n, differences)
    ci, method = _interval(differences, most, seed, resamples)
    p_value = sign_flip(differences, seed=seed)
    means = float(np.mean(first)), float(np.mean(second))
    return Difference(*means, ci, p_value, "sign_flip", n, ci_method=method)


def sign_flip(differences: Float64, *, seed: int, flips: int = 9999) -> float:
    """The two-sided p value of a mean of 0 under random signs (Fisher's randomisation test).

    All sign patterns are tried where there are at most 2^14 of them; otherwise ``flips`` random
    ones and the observed one (Phipson and Smyth, 2010). Sums that differ from the observed one
    by rounding alone count as ties.

    Args:
        differences: (n,) one per image.
        seed: Of the random patterns.
        flips: How many.
    """
    values = np.abs(np.asarray(differences, np.float64)[differences != 0])
    observed = abs(float(np.sum(differences, dtype=np.float64))) - _ROUNDING * values.sum()
    if 2 ** min(len(values), 60) <= _MOST_EXACT:
        patterns = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        sums = np.abs((2 * patterns - 1) @ values)
        return float(np.mean(sums >= observed))
    rng = np.random.default_rng(seed)
    reached = 1
    for start in range(0, flips, _BLOCK):
        signs = rng.integers(0, 2, (min(_BLOCK, flips - start), len(values)), dtype=np.int8)
        sums = np.abs((2 * signs - 1) @ values)
        reached += int(np.count_nonzero(sums >= observed))
    return reached / (flips + 1)


def paired_auroc(
    first: tuple[Scores, Scores], second: tuple[Scores, Scores], *, level: float = LEVEL
) -> Difference:
    """Compare the AUROC of two scores of the same images (DeLong et al., 1988).

    As in :func:`delong` each side also counts one imagined image, here of the largest spread
    that changes of this mean size allow, and the quantile is a Welch-Satterthwaite t. With
    hundreds of images on both sides this is DeLong's own test. Where no image's rank changed,
    or all went from one end to the other, the images of the smaller set are the trials.

    Args:
        first: (known, novel) scores by the first model, (n,) and (m,).
        second: The same images' scores by the second, in the same order.
        level: Coverage of the interval.

    Raises:
        InvalidInput: If the sets differ in size, or one has fewer than two images.
    """
    from scipy.special import stdtr, stdtrit

    parts = [_components(*scores) for scores in (first, second)]
    for one, other in zip(*parts, strict=True):
        _check(one, other)
        if len(one) < 2:
            raise InvalidInput("expected at least 2 known and 2 novel images, got fewer")
    changes = [other - one for one, other in zip(*parts, strict=True)]
    sizes = [len(change) for change in changes]
    areas = float(parts[0][0].mean()), float(parts[1][0].mean())
    difference = areas[1] - areas[0]
    # Numbers in [-1, 1] of this mean and this mean size vary most at -1, 0 and 1.
    most = [max(float(np.abs(c).mean()) - difference**2, 0.0) for c in changes]
    variances = [
        variance_towards(change, spread) / len(change)
        for change, spread in zip(changes, most, strict=True)
    ]
    if max(variances) < _ROUNDING**2:
        # No image changed sides, or every one: those of the smaller set are the trials.
        trials, side = min(sizes), float(round(difference))
        same = constant_interval(side, trials, least=-1, most=1, level=level)
        p_value = 1.0 if side == 0 else _two_sided_coin(0, trials)
        return Difference(*areas, same, p_value, _DELONG, sum(sizes), ci_method=_EXACT)
    error, freedom = math.sqrt(sum(variances)), welch_freedom(variances, sizes)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error))
    ci = max(difference - half, -1.0), min(difference + half, 1.0)
    return Difference(*areas, ci, p_value, _DELONG, sum(sizes), ci_method=_DELONG)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that any false alarm among all has the stated rate (Holm, 1979)."""
    count = len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _components(known: Scores, novel: Scores) -> tuple[Float64, Float64]:
    """Share of known images below each novel one, and of novel images above each known one."""
    m, n = len(novel), len(known)
    pooled = midranks(np.concatenate([novel, known]))
    above = (pooled[:m] - midranks(novel)) / n
    below = 1 - (pooled[m:] - midranks(known)) / m
    return above, below


def _interval(
    differences: Float64, most: float, seed: int, resamples: int
) -> tuple[Interval | None, CiMethod]:
    """Of the mean of the differences, and by which method."""
    n = len(differences)
    if n < FEW:
        return None, ""
    if differences[0] == differences[-1]:
        same = constant_interval(float(differences[0]), n, least=-most, most=most)
        return same, _EXACT if same else ""
    (ci,) = bootstrap(
        lambda counts: np.array([counts[0] @ differences / n]),
        (n,),
        seed=seed,
        resamples=resamples,
    )
    return ci, "bootstrap"


def _two_sided_coin(fewer: int, tosses: int) -> float:
    """The chance of at most ``fewer`` of either side in fair tosses."""
    if tosses == 0:
        return 1.0
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**tosses))


def _check(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> None:
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise InvalidInput(
            f"expected two arrays (n,) over the same images, got {first.shape} and "
            f"{second.shape}"
        )
