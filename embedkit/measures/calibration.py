"""Does a model that says 90 % turn out right in 90 % of the cases?"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Labels

__all__ = [
    "BINS",
    "brier",
    "calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability",
    "scaled",
]

BINS = 15
"""Bins of Guo et al. (2017)."""

Logits = npt.NDArray[np.float64]
Shares = npt.NDArray[np.float64]

# The least probability that counts: a wrong answer without doubt costs 27.6, not infinity.
_LEAST = 1e-12
_TEMPERATURES = (1e-2, 1e2)
_STEPS = 60


def reliability(
    confidence: Shares,
    correct: npt.NDArray[np.bool_],
    *,
    bins: int = BINS,
    width: Literal["equal", "mass"] = "equal",
) -> tuple[Shares, Shares, npt.NDArray[np.int64]]:
    """Mean confidence, accuracy and number of images of each bin that has any.

    Args:
        confidence: (n,) probability of the predicted class, 0 to 1.
        correct: (n,) whether the prediction is right.
        bins: Number of bins, at least 1.
        width: ``equal`` bins are ``(lo, hi]`` of equal width, and the last one holds 1;
            ``mass`` bins hold equally many images, by ascending confidence.

    Raises:
        InvalidInput: If shapes differ, there is no image, or a confidence is no share.
    """
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise InvalidInput(
            "expected one confidence and one outcome per image, got "
            f"{confidence.shape} and {correct.shape}"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all() or bins < 1:
        raise InvalidInput(
            f"expected confidences from 0 to 1 and at least one bin, got {confidence.min()} to "
            f"{confidence.max()} and {bins}"
        )
    if width == "equal":
        places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    else:
        order = np.argsort(confidence, kind="stable")
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) * bins // len(order)
    counts = np.bincount(places, minlength=bins)
    used = counts > 0
    sums = [np.bincount(places, weights=v, minlength=bins)[used] for v in (confidence, correct)]
    return sums[0] / counts[used], sums[1] / counts[used], counts[used]


def calibration_error(
    confidence: Shares,
    correct: npt.NDArray[np.bool_],
    *,
    bins: int = BINS,
    width: Literal["equal", "mass"] = "equal",
) -> float:
    """Expected calibration error: mean over images of their bin's |accuracy - confidence|.

    Naeini et al. (2015), Guo et al. (2017), with equal widths; equal masses as Nixon et al.
    (2019). From 0 (perfect) to 1; for few images it is biased upwards.

    Raises:
        InvalidInput: As ``reliability``.
    """
    mean, accuracy, counts = reliability(confidence, correct, bins=bins, width=width)
    return float(np.sum(counts * np.abs(accuracy - mean)) / counts.sum())


def brier(probabilities: Shares, labels: Labels) -> Shares:
    """Squared distance of each prediction from the truth (Brier 1950), (n,), from 0 to 2."""
    certain = np.eye(probabilities.shape[1])[labels]
    total: Shares = ((probabilities - certain) ** 2).sum(axis=1)
    return total


def negative_log_likelihood(probabilities: Shares, labels: Labels) -> Shares:
    """Minus the logarithm of the probability of the true class, (n,), in nats, at least 0."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(chosen, _LEAST)).clip(max=0.0)


def scaled(logits: Logits, temperature: float) -> Shares:
    """Softmax of the logits divided by a temperature, (n, c)."""
    shifted = (logits - logits.max(axis=1, keepdims=True)) / temperature
    exponentials = np.exp(shifted)
    shares: Shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the largest likelihood of the labels (Guo et al. 2017).

    The likelihood has one maximum in the inverse temperature, which golden sections find; the
    answer lies between 0.01 and 100.

    Args:
        logits: (n, c), of images that nothing was fitted on.
        labels: (n,) class indices.

    Raises:
        InvalidInput: If shapes do not match or there is no image.
    """
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels):
        raise InvalidInput(
            f"expected logits (n, c) and labels (n,), got {logits.shape} and {labels.shape}"
        )

    def loss(log_temperature: float) -> float:
        shares = scaled(logits, float(np.exp(log_temperature)))
        return float(negative_log_likelihood(shares, labels).mean())

    low, high = np.log(_TEMPERATURES)
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
