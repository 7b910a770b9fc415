"""Thresholds: above which score an image is called novel, and how sure that threshold is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import ROWS, Detector, FittedDetector, Observation, State
from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = ["Threshold", "fit_calibrated", "quantile_threshold"]


@dataclass(frozen=True)
class Threshold:
    """A score above which an image is novel.

    Attributes:
        value: An image with a higher score is novel; one with this score is still known.
        low: Lower end of the interval for the true quantile.
        high: Upper end; infinite if there were too few images to bound it.
        accepted: Share of known images that the threshold was chosen to accept.
        confidence: Coverage of the interval, at least.
        n: Known images it was chosen on.
    """

    value: float
    low: float
    high: float
    accepted: float
    confidence: float
    n: int

    def to_arrays(self) -> State:
        """Arrays to store beside a detector's state."""
        bounds = np.array([self.value, self.low, self.high], dtype=np.float64)
        chosen = np.array([self.accepted, self.confidence, self.n], dtype=np.float64)
        return {"threshold": bounds, "threshold_from": chosen}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "Threshold | None":
        """Read a stored threshold, or None where there is none."""
        if "threshold" not in arrays or "threshold_from" not in arrays:
            return None
        value, low, high = (float(v) for v in arrays["threshold"].astype(np.float64))
        accepted, confidence, n = (
            float(v) for v in arrays["threshold_from"].astype(np.float64)
        )
        return cls(value, low, high, accepted, confidence, int(n))


def quantile_threshold(
    known: Scores, *, accepted: float = 0.95, confidence: float = 0.95
) -> Threshold:
    """Return the score that accepts a share of known images, with a distribution-free interval.

    The value is the ``ceil(accepted * n)``-th smallest score. The number of scores below the
    true quantile is binomial(n, accepted), so two order statistics are an interval for it.

    Args:
        known: Novelty of known images that the detector was not fitted on.
        accepted: Share to accept, in (0, 1).
        confidence: Least coverage of the interval, in (0, 1).

    Raises:
        InvalidInput: If there are no scores, one is not finite, or a share is out of range.

    Example:
        >>> import numpy as np
        >>> from embedkit.detect.threshold import quantile_threshold
        >>> quantile_threshold(np.arange(1000.0)).value
        949.0
    """
    if not (0 < accepted < 1 and 0 < confidence < 1):
        raise InvalidInput(f"expected shares in (0, 1), got {accepted} and {confidence}")
    if known.ndim != 1 or len(known) == 0 or not np.isfinite(known).all():
        raise InvalidInput(f"expected finite scores (n,), n >= 1, got shape {known.shape}")
    n = len(known)
    ordered = np.concatenate([[-np.inf], np.sort(known), [np.inf]])
    below = _binomial_cdf(n, accepted)
    tail = (1 - confidence) / 2
    # ranks are 1-based: P(B < low) <= tail and P(B >= high) <= tail
    low = int(np.searchsorted(below, tail, side="right"))
    high = 1 + int(np.searchsorted(below, 1 - tail, side="left"))
    rank = math.ceil(accepted * n - 1e-9)
    bounds = (float(ordered[rank]), float(ordered[low]), float(ordered[min(high, n + 1)]))
    return Threshold(*bounds, accepted, confidence, n)


def fit_calibrated(
    detector: Detector,
    observation: Observation,
    *,
    accepted: float = 0.95,
    held_out: float = 0.2,
    seed: int = 0,
) -> tuple[FittedDetector, Threshold]:
    """Fit on one part of the known images and choose the threshold on the rest.

    A threshold from the images of the fit would be too tight: each is its own neighbour.

    Args:
        detector: Settings.
        observation: Known images.
        accepted: Share of known images to accept.
        held_out: Share of the images that choose the threshold.
        seed: Chooses the split.

    Raises:
        InvalidInput: If there are too few images.
    """
    n = len(observation)
    count = round(n * held_out)
    if not 0 < count < n:
        raise InvalidInput(f"expected enough images to hold {held_out} of them out, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    fitted = detector.fit(_rows(observation, np.sort(order[count:])))
    scores = fitted.score(_rows(observation, np.sort(order[:count])))
    return fitted, quantile_threshold(scores, accepted=accepted)


def _rows(observation: Observation, index: npt.NDArray[np.int64]) -> Observation:
    given = {f: getattr(observation, f) for f in ROWS if getattr(observation, f) is not None}
    return replace(observation, **{name: rows[index] for name, rows in given.items()})


def _binomial_cdf(n: int, p: float) -> npt.NDArray[np.float64]:
    """P(B <= b) for b = 0 .. n."""
    b = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choose = log_factorial[n] - log_factorial[b] - log_factorial[n - b]
    log_mass = log_choose + b * math.log(p) + (n - b) * math.log1p(-p)
    return np.cumsum(np.exp(log_mass))
