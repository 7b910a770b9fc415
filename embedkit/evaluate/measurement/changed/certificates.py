"""Certificates of many images, and the metrics that come of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.changed.smoothing import ABSTAINED, Decision
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.statistics import Metric, Metrics, clopper_pearson, robust_accuracy
from embedkit.types import Labels

__all__ = ["FARTHEST", "Certificates", "certificate_metrics", "certified_accuracy"]

FARTHEST = 2.0
"""Two unit vectors are never farther apart."""

_POINTS = 33

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass
class Certificates:
    """What was certified, image by image in their order.

    Attributes:
        labels: True class of each image; not used without decisions.
        heads: Names of the decisions.
        radii_255: L2 distances of the bounds on embeddings.
    """

    labels: Labels
    heads: tuple[str, ...]
    radii_255: tuple[float, ...]
    _decisions: dict[tuple[str, float], list[Decision]] = field(default_factory=dict)
    _bounds: dict[float, list[tuple[float, ...] | None]] = field(default_factory=dict)

    def add_decision(self, head: str, sigma_255: float, decision: Decision) -> None:
        """Add the next image's decision."""
        self._decisions.setdefault((head, sigma_255), []).append(decision)

    def add_bounds(self, sigma_255: float, bounds: tuple[float, ...] | None) -> None:
        """Add the next image's bounds, one per radius; None if it has no centre."""
        self._bounds.setdefault(sigma_255, []).append(bounds)

    def decisions(self) -> dict[str, tuple[Labels, Floats]]:
        """Classes and radii by ``<head>.<sigma>``, both (n,)."""
        return {
            f"{head}.{sigma:g}": (
                np.array([d.label for d in found], np.int64),
                np.array([d.radius_255 for d in found]),
            )
            for (head, sigma), found in self._decisions.items()
        }

    def bounds(self) -> dict[str, Floats]:
        """Bounds by ``centre.<sigma>``, (n, radii).

        Infinite where the samples were too few, and not a number where there is no centre.
        """
        none = (np.nan,) * len(self.radii_255)
        return {
            f"centre.{sigma:g}": np.array([none if b is None else b for b in found])
            for sigma, found in self._bounds.items()
        }

    def items(self) -> dict[str, npt.NDArray[np.generic]]:
        """Arrays with one entry per image."""
        made: dict[str, npt.NDArray[np.generic]] = {}
        if self.heads:
            made["labels"] = self.labels
        for name, (predicted, radius) in self.decisions().items():
            made |= {f"{name}.predicted": predicted, f"{name}.radius_255": radius}
        return made | {f"{name}.bounds": found for name, found in self.bounds().items()}

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Certified accuracy against the distance, with its interval, per decision."""
        found = self.decisions()
        largest = max((float(radius.max()) for _, radius in found.values()), default=0.0)
        grid = np.linspace(0, largest, _POINTS)
        series = {}
        for name, (predicted, radius) in found.items():
            right = predicted == self.labels
            points = [(right & (radius >= r)) for r in grid]
            intervals = [clopper_pearson(int(p.sum()), len(p)) for p in points]
            series[name] = {
                "x": grid.tolist(),
                "y": [float(p.mean()) for p in points],
                "lo": [low for low, _ in intervals],
                "hi": [high for _, high in intervals],
            }
        return series


def certified_accuracy(certain: Bools, alpha: float) -> Metric:
    """The share of images that are certain to be right, whatever the images and the noise.

    The exact interval over images is lowered by alpha below: that share of the certificates
    may be wrong.
    """
    share = robust_accuracy(certain)
    low, high = clopper_pearson(int(certain.sum()), len(certain))
    ci = (max(0.0, low - alpha), high)
    return Metric(share.value, ci, share.n, ci_method="clopper_pearson_less_alpha")


def certificate_metrics(found: Certificates, options: Options) -> Metrics:
    """Every metric of the decisions and of the embeddings."""
    metrics: Metrics = {}
    for name, (predicted, radius) in found.decisions().items():
        right = predicted == found.labels
        metrics[f"{name}.smoothed_accuracy"] = certified_accuracy(
            right, options.certified_alpha
        )
        metrics[f"{name}.abstained"] = _share(predicted == ABSTAINED)
        metrics[f"{name}.mean_radius_255"] = mean_metric(
            np.where(right, radius, 0.0), unit="1/255", least=0
        )
        for r in options.certified_radii_255:
            metrics[f"{name}.{r:g}.certified_accuracy"] = certified_accuracy(
                right & (radius >= r), options.certified_alpha
            )
    for name, bounds in found.bounds().items():
        metrics[f"{name}.abstained"] = _share(np.isnan(bounds[:, 0]))
        metrics |= _shifts(name, bounds, options.certified_radii_255)
    return metrics


def _shifts(name: str, bounds: Floats, radii_255: Sequence[float]) -> Metrics:
    """Mean bound per radius; where there is none, that of any two unit vectors."""
    valid = np.minimum(np.where(np.isnan(bounds), FARTHEST, bounds), FARTHEST)
    return {
        f"{name}.{radius:g}.output_shift": mean_metric(
            valid[:, column],
            unit="distance",
            higher_is_better=False,
            least=0,
            most=FARTHEST,
        )
        for column, radius in enumerate(radii_255)
    }


def _share(values: Bools) -> Metric:
    ci = clopper_pearson(int(values.sum()), len(values))
    return Metric(float(values.mean()), ci, len(values), "fraction", False, "clopper_pearson")
