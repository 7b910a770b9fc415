"""Randomised smoothing: what holds for every image within an L2 ball, from noisy samples.

The smoothed decision of an image x is the class that the model gives most often to x + e, e
normal with standard deviation sigma per value (Cohen, Rosenfeld and Kolter 2019). The smoothed
embedding is the centre of a small ball that holds half of the embeddings of x + e (Kumar and
Goldstein 2021). Both certificates hold for any function of x + e, so also for one that first
clips and rounds it to 8 bits.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Images, Labels, Pixels

__all__ = [
    "ABSTAINED",
    "Ball",
    "Decision",
    "certify_decision",
    "certify_output",
    "enclosing_ball",
    "lower_bound",
    "noisy",
    "slack",
]

ABSTAINED = -1
"""The class of a smoothed decision that gives none."""

CANDIDATES = 64
"""Samples tried as centre: all are outside the smallest ball with probability 2^-64."""

_NORMAL = NormalDist()

Distances = Annotated[npt.NDArray[np.float64], "s"]


def noisy(image: Pixels, sigma_255: float, count: int, rng: np.random.Generator) -> Images:
    """Return (count, h, w, c) uint8: the image with normal noise, clipped and rounded.

    Args:
        image: (h, w, c) uint8.
        sigma_255: Standard deviation in steps of 1/255.
        count: Samples.
        rng: Of the noise.
    """
    noise = rng.standard_normal((count, *image.shape), np.float32) * np.float32(sigma_255)
    return np.asarray(np.rint((noise + image).clip(0, 255)), np.uint8)


def lower_bound(hits: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: a share is at least this with confidence 1 - alpha.

    Raises:
        InvalidInput: If the counts are not possible.
    """
    from scipy.special import betaincinv

    if n < 1 or not 0 <= hits <= n:
        raise InvalidInput(f"expected 0 <= hits <= n and n >= 1, got {hits} of {n}")
    return 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, alpha))


@dataclass(frozen=True)
class Decision:
    """What is certain of one image's smoothed decision.

    Attributes:
        label: Its class, or ``ABSTAINED``.
        hits: Samples of the second draw with the class that led in the first.
        radius_255: L2 distance within which the smoothed decision stays, in steps of 1/255.
    """

    label: int
    hits: int
    radius_255: float


def certify_decision(
    selected: Labels, estimated: Labels, sigma_255: float, alpha: float
) -> Decision:
    """Certify as Cohen et al. (2019) do in their algorithm CERTIFY.

    The class c that leads among the first samples is tested on the others: with p the lower
    bound of its share, the radius is R = sigma Phi^-1(p), and there is none below p = 1/2.

    Args:
        selected: Decisions on the first samples, (n0,).
        estimated: Decisions on fresh samples, (n,).
        sigma_255: Of the noise.
        alpha: Probability that the radius is wrong.
    """
    leading = int(np.bincount(selected).argmax())
    hits = int(np.count_nonzero(estimated == leading))
    share = lower_bound(hits, len(estimated), alpha)
    if share < 0.5:
        return Decision(ABSTAINED, hits, 0.0)
    return Decision(leading, hits, sigma_255 * _NORMAL.inv_cdf(share))


@dataclass(frozen=True)
class Ball:
    """A ball in the space of embeddings."""

    centre: Annotated[npt.NDArray[np.float64], "d"]
    radius: float

    def distances(self, embeddings: Embeddings) -> Distances:
        """Euclidean distance of each embedding (s, d) from the centre."""
        return np.asarray(np.linalg.norm(embeddings - self.centre, axis=1), np.float64)


def enclosing_ball(samples: Embeddings) -> Ball:
    """A ball of at most twice the smallest radius that holds half of the samples.

    The centre is the sample whose median distance to all is the smallest: a sample within the
    smallest ball reaches every other one in it at twice its radius, so beta = 2.

    Args:
        samples: (n, d), of independent noise; the first ``CANDIDATES`` are tried.
    """
    points = samples.astype(np.float64)
    balls = [
        Ball(centre, float(np.sort(np.linalg.norm(points - centre, axis=1))[len(points) // 2]))
        for centre in points[:CANDIDATES]
    ]
    return min(balls, key=lambda ball: ball.radius)


def slack(n: int, alpha: float) -> float:
    """How far a share of n samples may be from the truth: sqrt(ln(1 / alpha) / 2n)."""
    return math.sqrt(math.log(1 / alpha) / (2 * n))


def certify_output(
    ball: Ball,
    distances: Distances,
    *,
    selected: int,
    sigma_255: float,
    radii_255: tuple[float, ...],
    alpha: float,
) -> tuple[float, ...] | None:
    """How far the smoothed embedding moves at most, as Kumar and Goldstein (2021) certify it.

    With alpha_1 = alpha_2 = alpha / 2: Delta_1 = sqrt(ln(2 / alpha_1) / 2n); Delta, the same
    for every image, is Delta_1 + 1 / sqrt(n). The centre is refused if the ball's share of
    fresh samples, less Delta_1, is below 1/2 - Delta. Otherwise the quantile
    q = Phi(Phi^-1(1/2 + Delta) + radius / sigma) + sqrt(ln(1 / alpha_2) / 2n) of the distances
    from the centre, times 1 + beta = 3, bounds the distance of the two smoothed embeddings.

    Args:
        ball: From ``enclosing_ball``.
        distances: Of fresh samples from its centre, (n,).
        selected: Samples that the ball was made from.
        sigma_255: Of the noise.
        radii_255: L2 distances of the other image, in steps of 1/255.
        alpha: Probability that the bound is wrong.

    Returns:
        One bound per radius, infinite where n samples cannot give one; None without a centre.
    """
    n = len(distances)
    fewest = min(n, selected)
    first = slack(fewest, alpha / 4)
    delta = first + 1 / math.sqrt(fewest)
    inside = float(np.mean(distances <= ball.radius))
    if delta >= 0.5 or inside - first < 0.5 - delta:
        return None
    ordered = np.sort(distances)
    bounds = []
    for radius in radii_255:
        share = _NORMAL.cdf(_NORMAL.inv_cdf(0.5 + delta) + radius / sigma_255)
        place = math.ceil((share + slack(n, alpha / 2)) * n)
        bounds.append(3 * float(ordered[place - 1]) if place <= n else math.inf)
    return tuple(bounds)
