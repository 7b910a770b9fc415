"""How evenly do embeddings move when an image is changed more and more?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.pixels.views import per_image_rngs
from embedkit.evaluate.statistics import Metrics
from embedkit.evaluate.task import Figure, TaskResult, tasks
from embedkit.types import Images

__all__ = ["ManifoldQuality"]

Steps = npt.NDArray[np.float64]
"""Length of each step of each image's embedding, (n, s)."""


@tasks.register("rmqm")
@dataclass(frozen=True)
class ManifoldQuality:
    """Step sizes of the embedding under white noise that grows in equal steps.

    After van der Merwe, Newman and Barnard (2022): each image goes along a straight line
    towards one seeded noise image, and its embedding is followed. ``total`` is the length of
    its path, ``variation`` the coefficient of variation of an image's steps, and ``rmqm`` the
    mean step over one plus the variation, so that large and even steps give a large value. The
    paper also moves images by PGD; a served model has no gradient, and its exact constant is
    not used, so compare ``rmqm`` with other reports of embedkit alone.

    Metrics: ``rmqm``, ``total``, ``step``, ``variation``. Items: ``steps`` and
    ``steps_<baseline>``, both (images, steps).

    Attributes:
        steps: Alterations.
        largest: Standard deviation of the noise after the last one, a share of full
            brightness.
    """

    steps: int = 8
    largest: float = 0.25

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("rmqm", "total", "step", "variation")

    def run(self, context: Context) -> TaskResult:
        """Follow up to ``view_images`` test images."""
        count = min(context.options.view_images, len(context.test))
        rng = np.random.default_rng(context.seed)
        part = context.test.subset(np.sort(rng.permutation(len(context.test))[:count]))
        path = self._path(part, context)
        warnings: list[str] = []
        served = _follow(context, "served", path)
        items: dict[str, npt.NDArray[np.generic]] = {"steps": served}
        baselines: dict[str, Metrics] = {}
        for which in context.baselines:
            work = partial(_follow, context, which, path)
            found = attempt(f"baseline {which}", work, warnings)
            if found is not None:
                items[f"steps_{which}"] = found
                baselines[which] = _metrics(found)
        return TaskResult(
            "rmqm",
            _metrics(served),
            baselines,
            cost={"images": count * (self.steps + 1)},
            warnings=tuple(warnings),
            items=items,
            figures={"steps": self._curve(items)},
        )

    def _path(self, part: Dataset, context: Context) -> list[Dataset]:
        """The images, and the images after each alteration."""
        images = part.arrays(context.spec)
        rngs = per_image_rngs(part.ids, "rmqm", context.seed)
        noise = np.stack([rng.standard_normal(images.shape[1:], np.float32) for rng in rngs])
        made: list[Images] = []
        for step in range(self.steps + 1):
            shift = 255 * self.largest * step / self.steps
            made.append(np.rint((images + shift * noise).clip(0, 255)).astype(np.uint8))
        return [Dataset(f"noise step {step}", moved) for step, moved in enumerate(made)]

    def _curve(self, items: dict[str, npt.NDArray[np.generic]]) -> Figure:
        series = {}
        for name, values in items.items():
            steps = np.asarray(values, np.float64)
            mean = steps.mean(axis=0)
            half = 1.96 * steps.std(axis=0) / np.sqrt(len(steps))
            who = name.removeprefix("steps_").replace("steps", "model")
            series[who] = {
                "y": mean.tolist(),
                "lo": (mean - half).tolist(),
                "hi": (mean + half).tolist(),
            }
        return {
            "kind": "curve",
            "title": "Distance that embeddings move per step of noise",
            "x": list(range(1, self.steps + 1)),
            "series": series,
            "xlabel": "step of noise",
            "ylabel": "distance",
        }


def _follow(context: Context, which: Which, path: list[Dataset]) -> Steps:
    """Length of each step, (n, s)."""
    z = np.stack([context.embeddings(which, data) for data in path], axis=1).astype(np.float64)
    lengths: Steps = np.linalg.norm(np.diff(z, axis=1), axis=2)
    return lengths


def _metrics(steps: Steps) -> Metrics:
    mean, spread = steps.mean(axis=1), steps.std(axis=1)
    moved = mean > 0
    variation = np.where(moved, spread / np.where(moved, mean, 1.0), 0.0)
    return {
        "rmqm": mean_metric(mean / (1 + variation), unit="distance", least=0),
        "total": mean_metric(steps.sum(axis=1), unit="distance", least=0),
        "step": mean_metric(mean, unit="distance", least=0, most=2),
        "variation": mean_metric(variation, unit="", higher_is_better=False, least=0),
    }
