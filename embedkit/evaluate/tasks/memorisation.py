"""Does the model know images because it was trained on them?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import NotFound
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.statistics import Metric, Metrics, delong
from embedkit.evaluate.task import TaskResult, tasks

__all__ = ["Memorisation"]

Distances = npt.NDArray[np.float64]


@tasks.register("memorisation")
@dataclass(frozen=True)
class Memorisation:
    """Whether training images are embedded more steadily than unseen ones when augmented.

    The distance between random views of one image is taken for up to ``view_images`` training
    and as many test images. ``gap`` is the mean of the test images minus that of the training
    images, and ``auroc`` how well the distance tells the two apart: 0.5 means that no
    membership shows.

    SSLMem (Wang et al. 2024) needs a second encoder that was *not* trained on these images. It
    is the untrained encoder of the same architecture here, so ``sslmem_train`` and
    ``sslmem_test`` are no values of the paper, and mean something by their difference,
    ``sslmem``: each is the mean of the other encoder's distance minus the model's, divided by
    the largest absolute difference, so that they lie in [-1, 1].

    Metrics: ``gap``, ``auroc``; with a bundle ``sslmem_train``, ``sslmem_test``, ``sslmem``.
    Items: ``train``, ``test`` (distances) and ``train_untrained``, ``test_untrained``.

    Attributes:
        views: Views of each image, at least 2; all pairs of them count.
    """

    views: int = 4

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("gap", "auroc", "sslmem_train", "sslmem_test", "sslmem")

    def run(self, context: Context) -> TaskResult:
        """Embed views of seen and unseen images."""
        count = min(context.options.view_images, len(context.train), len(context.test))
        seen = self._distances(context, "served", context.train, count)
        unseen = self._distances(context, "served", context.test, count)
        items: dict[str, npt.NDArray[np.generic]] = {"train": seen, "test": unseen}
        area = delong(seen, unseen)
        metrics: Metrics = {
            "gap": _difference(unseen, seen),
            "auroc": Metric(area.value, area.ci, 2 * count, "fraction", False, area.method),
        }
        warnings: tuple[str, ...] = ()
        try:
            other: Which = "random_encoder"
            base_seen = self._distances(context, other, context.train, count)
            base_unseen = self._distances(context, other, context.test, count)
        except NotFound as error:
            warnings = (f"no sslmem: {error}",)
        else:
            items |= {"train_untrained": base_seen, "test_untrained": base_unseen}
            metrics |= _sslmem(base_seen - seen, base_unseen - unseen)
        return TaskResult(
            "memorisation",
            metrics,
            cost={"images": 2 * count * self.views},
            warnings=warnings,
            items=items,
        )

    def _distances(
        self, context: Context, which: Which, data: Dataset, count: int
    ) -> Distances:
        """Mean distance over all pairs of views of each image, (count,), from 0 to 2."""
        rng = np.random.default_rng(context.seed)
        part = data.subset(np.sort(rng.permutation(len(data))[:count]))
        images = part.arrays(context.spec)
        z = np.stack(
            [
                context.embeddings(
                    which,
                    Dataset(
                        f"{data.name}: view {v}",
                        augmented(images, ids=part.ids, seed=context.seed + v),
                    ),
                )
                for v in range(self.views)
            ],
            axis=1,
        ).astype(np.float64)
        first, second = np.triu_indices(self.views, 1)
        gaps: Distances = np.linalg.norm(z[:, first] - z[:, second], axis=2)
        return np.asarray(gaps.mean(axis=1))


def _difference(first: Distances, second: Distances) -> Metric:
    """Difference of two means with a normal interval."""
    value = float(first.mean() - second.mean())
    n = len(first) + len(second)
    if min(len(first), len(second)) < 2:
        return Metric(value, None, n, "distance", higher_is_better=False)
    spread = first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)
    half = 1.96 * float(np.sqrt(spread))
    return Metric(value, (value - half, value + half), n, "distance", False, "normal")


def _sslmem(seen: Distances, unseen: Distances) -> Metrics:
    """The differences over their range, and how much larger they are for seen images."""
    everything = np.concatenate([seen, unseen])
    span = float(np.abs(everything).max()) or 1.0
    metrics = {
        "sslmem_train": mean_metric(
            seen / span, unit="", higher_is_better=False, least=-1, most=1
        ),
        "sslmem_test": mean_metric(
            unseen / span, unit="", higher_is_better=False, least=-1, most=1
        ),
    }
    gap = _difference(seen / span, unseen / span)
    return metrics | {"sslmem": Metric(gap.value, gap.ci, gap.n, "", False, gap.ci_method)}
