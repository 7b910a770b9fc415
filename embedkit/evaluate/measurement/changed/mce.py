"""Errors relative to a reference: mCE and relative mCE (Hendrycks and Dietterich 2019)."""

from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics import FEW, Metrics, jackknife_metric
from embedkit.measures.without import measure_without

__all__ = ["ALEXNET", "Float64", "Reference", "Severities", "alexnet", "relative_errors"]

Severities = dict[str, tuple[int, ...]]
"""Severities of each corruption."""

Float64 = npt.NDArray[np.float64]
"""Errors of images."""
Groups = npt.NDArray[np.int64]
Reference = tuple[dict[str, Float64], Float64]
"""Error of each image, (n,), by corruption, and without one."""

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Error of AlexNet on ImageNet-C, mean over the severities: the reference of mCE there."""
_ALEXNET_CLEAN = 0.4345

_SEVERITIES = 5


def alexnet(names: Severities, n: int) -> Reference | None:
    """Return AlexNet's errors on ImageNet-C as if of n images; None where some are missing."""
    if not names.keys() <= ALEXNET.keys() or any(
        len(severities) != _SEVERITIES for severities in names.values()
    ):
        return None
    return {name: np.full(n, ALEXNET[name]) for name in names}, np.full(n, _ALEXNET_CLEAN)


def relative_errors(
    own: dict[str, Float64], own_clean: Float64, reference: Reference, groups: Groups
) -> Metrics:
    """Return mCE and relative mCE; a corruption that the reference does not mind is left out.

    Args:
        own: The model's errors by corruption, (n,) each.
        own_clean: Its errors without one, (n,).
        reference: Those of the reference.
        groups: Which of the jackknife's groups each image is in, (n,).
    """
    errors, clean = reference
    found: Metrics = {}
    zero = np.zeros_like(clean)
    for name, bases in {"mce": (zero, zero), "relative_mce": (own_clean, clean)}.items():
        kept = [c for c in own if errors[c].mean() > bases[1].mean()]
        pairs = [(own[c] - bases[0], errors[c] - bases[1]) for c in kept]
        if pairs:
            value = _mean_ratio(pairs, np.arange(len(clean)))
            without = None
            if len(clean) >= FEW:
                without = measure_without(partial(_mean_ratio, pairs), groups)
            # A rise over the clean error may be a fall; an error is never below 0.
            least = 0.0 if name == "mce" else -np.inf
            found[name] = jackknife_metric(
                value, without, len(clean), higher_is_better=False, least=least
            )
    return found


def _mean_ratio(pairs: list[tuple[Float64, Float64]], rows: Groups) -> float:
    """Mean over corruptions of the model's rise in error over the reference's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean([own[rows].mean() / other[rows].mean() for own, other in pairs]))
