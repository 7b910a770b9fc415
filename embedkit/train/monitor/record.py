"""Monitor: what a run says of itself while it runs, and whether it is collapsing."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch

from embedkit.measures.geometry import alignment, effective_rank, embedding_std, uniformity
from embedkit.train.batch import Loss, Projections

__all__ = ["Measures", "Monitor", "Progress", "Report", "measure"]

# A constant embedding has rank 1 and standard deviation 0; embeddings that are spread evenly
# have 1 / sqrt(d). An untrained network lies well above both limits.
COLLAPSED_RANK = 1.5
COLLAPSED_SHARE = 0.02
# After the warm-up healthy runs keep a share of 0.37 or more: both committed recipes, each
# objective on digits, two classes, coloured noise. Runs that no longer learn fall below 0.25.
SHRUNKEN_SHARE = 0.25
_COLLAPSING = "the embeddings are collapsing"


@dataclass(frozen=True)
class Measures:
    """Geometry of the batch's embeddings, which shows a collapse that the loss may hide.

    Attributes:
        alignment: Mean squared distance between two views, in [0, 4]; None with one view.
        uniformity: Log of the mean Gaussian potential, at most 0; lower is more even.
        effective_rank: Exponential of the entropy of the singular values, in [1, d].
        embedding_std: Mean standard deviation of a dimension; 1 / sqrt(d) when spread evenly.
        dim: Dimensions of an embedding, d.
    """

    alignment: float | None
    uniformity: float
    effective_rank: float
    embedding_std: float
    dim: int

    @property
    def has_collapsed(self) -> bool:
        """Whether all images get nearly the same embedding, or differ along one line only."""
        return self.effective_rank < COLLAPSED_RANK or self.share < COLLAPSED_SHARE

    @property
    def share(self) -> float:
        """Standard deviation as a share of that of embeddings that are spread evenly."""
        return self.embedding_std * math.sqrt(self.dim)


@dataclass(frozen=True)
class Progress:
    """One line of ``metrics.jsonl``.

    Attributes:
        step: Steps done.
        steps: Steps of the whole run.
        epoch: Epochs done; counts fractions.
        loss: Of this step's batch.
        parts: What the loss consists of.
        grad_norm: Norm of the whole gradient before clipping.
        lr: Learning rate of this step.
        images_per_s: Images per second since the line before; all views count as one.
        seconds: Time since the start, over all starts of the run.
        eta_s: Time left, at the rate so far.
        measures: Geometry of the batch's embeddings.
        warning: What looks wrong, or empty; said once.
        knn: Share of a few training images whose class their neighbours tell, if it was just
            measured; see ``Probe``.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    parts: dict[str, float]
    grad_norm: float
    lr: float
    images_per_s: float
    seconds: float
    eta_s: float
    measures: Measures
    warning: str = ""
    knn: float | None = None

    def to_json(self) -> str:
        """One line of JSON without a line break."""
        values = {k: v for k, v in vars(self).items() if k != "measures"}
        if self.knn is None:
            del values["knn"]
        return json.dumps({**values, **vars(self.measures)})


Report: TypeAlias = Callable[[Progress], None]
"""Called with every line of the metrics, as it is written."""


@torch.no_grad()
def measure(features: Projections) -> Measures:
    """Measure the embeddings of one batch.

    Args:
        features: Of all views, (v, b, f), not normalised.
    """
    z = torch.nn.functional.normalize(features.detach().float(), dim=-1).cpu().numpy()
    return Measures(
        alignment=alignment(z[0], z[1]) if len(z) > 1 else None,
        uniformity=uniformity(z[0]),
        effective_rank=effective_rank(z[0]),
        embedding_std=embedding_std(z[0]),
        dim=z.shape[-1],
    )


@dataclass
class Monitor:
    """Writes ``metrics.jsonl`` and hands each line to ``report``.

    Attributes:
        path: The file that lines are added to.
        steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        batch_size: Images per step.
        report: Called with each line, or None.
        seconds: Time spent before this start of the run.
        settled: Steps, at least, before embeddings that merely shrink are warned about.
        warnings: Every warning so far, once each.
    """

    path: Path
    steps: int
    steps_per_epoch: int
    batch_size: int
    report: Report | None = None
    seconds: float = 0.0
    settled: int = 0
    warnings: list[str] = field(default_factory=list)
    last: Progress | None = None
    _unsaid: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Say something with the next line, unless it is empty or was said before."""
        if text and not any(text in said for said in self.warnings):
            self.warnings.append(text)
            self._unsaid.append(text)

    def start(self, step: int) -> None:
        """Begin to count time at a step."""
        self._began = self._previous = time.perf_counter()
        self._began_step = self._previous_step = step

    def elapsed(self) -> float:
        """Seconds of training, over all starts of the run."""
        return self.seconds + time.perf_counter() - self._began

    def record(
        self,
        step: int,
        loss: Loss,
        *,
        features: Projections,
        grad_norm: float,
        lr: float,
        knn: float | None = None,
    ) -> None:
        """Write the line of the step that was just done.

        Args:
            step: Steps done, this one included.
            loss: Of its batch.
            features: Of its batch, (v, b, f).
            grad_norm: Before clipping.
            lr: Learning rate of the step.
            knn: If it was just measured.
        """
        now = time.perf_counter()
        rate = (step - self._previous_step) / max(now - self._previous, 1e-9)
        overall = (step - self._began_step) / max(now - self._began, 1e-9)
        measures = measure(features)
        progress = Progress(
            step=step,
            steps=self.steps,
            epoch=round(step / self.steps_per_epoch, 3),
            loss=float(loss.total.detach()),
            parts={name: float(value) for name, value in loss.parts.items()},
            grad_norm=grad_norm,
            lr=lr,
            images_per_s=round(rate * self.batch_size, 1),
            seconds=round(self.elapsed(), 3),
            eta_s=round((self.steps - step) / overall, 1),
            measures=measures,
            warning=self._take_warnings(measures, step),
            knn=knn,
        )
        self._previous, self._previous_step = now, step
        self.last = progress
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(progress.to_json() + "\n")
        if self.report is not None:
            self.report(progress)

    def _take_warnings(self, measures: Measures, step: int) -> str:
        """What was not said before, of these measures too."""
        has_settled = step > max(self.settled, self.steps_per_epoch)
        has_shrunk = has_settled and measures.share < SHRUNKEN_SHARE
        is_said = any(_COLLAPSING in said for said in self.warnings)
        if (measures.has_collapsed or has_shrunk) and not is_said:
            self.warn(_collapse(measures))
        text, self._unsaid = "; ".join(self._unsaid), []
        return text


def _collapse(measures: Measures) -> str:
    return (
        f"{_COLLAPSING} (effective rank {measures.effective_rank:.2f} of "
        f"{measures.dim}, standard deviation {measures.embedding_std:.4f}, "
        f"{measures.share:.0%} of an even spread): lower optimiser.lr or the objective's "
        "temperature, augment, raise schedule.batch_size, or use an objective that keeps "
        "them apart such as 'vicreg'"
    )
