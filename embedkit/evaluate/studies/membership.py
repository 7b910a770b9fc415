"""Can it be told which images an encoder was trained on?"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.figures import histogram
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.statistics import Metric, Metrics, clopper_pearson, delong
from embedkit.evaluate.study import Progress, TrainFn, pixels_of, silent
from embedkit.evaluate.task import TaskResult
from embedkit.types import Embedder, Scores

__all__ = ["FPRS", "Membership", "likelihood_ratio", "view_similarity"]

FPRS = {"1e-2": 0.01, "1e-3": 0.001}
"""False-positive rates at which the attack is judged, by their name in the metrics."""

_FEWEST_MODELS = 4
_TINY = 1e-6

Members = npt.NDArray[np.bool_]
"""Whether each canary was among each model's training images, (m, n)."""


@dataclass(frozen=True)
class Membership:
    """Membership inference against canaries, judged at low false-positive rates.

    Canaries are training images drawn at random. Each of several encoders is trained on all
    other images and on a random half of the canaries, and served. The first is the target; the
    others show what a canary scores when it was trained on and when it was not.

    ``similarity``: the mean cosine between the embeddings of random views of a canary, larger
    for images that were trained on (EncoderMI, Liu et al. 2021). ``likelihood``: the ratio of
    the likelihoods of that score under normals fitted to the other encoders' scores with and
    without the canary, with one variance for all (LiRA, Carlini et al. 2022, section IV-C for
    few models), on the scale -log(1 - similarity).

    Metrics of both: ``auroc``; ``tpr_at_fpr_1e-2`` and ``1e-3``: the share of the trained-on
    canaries above the threshold that as few others pass (Clopper-Pearson given the threshold),
    and ``fpr_at_...``, the false positives there with their interval. A rate that fewer than
    one of the held-out canaries make up is left out. Baseline ``other_model``: the same attack
    on another encoder, whose training images have nothing to do with the target's: chance.

    Attributes:
        canaries: How many, half of which each encoder is trained on.
        models: Encoders that are trained.
        views: Views of each canary.
    """

    canaries: int = 2000
    models: int = 4
    views: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.canaries < 4 or self.views < 2 or self.models < _FEWEST_MODELS:
            raise InvalidInput(
                f"expected at least 4 canaries, 2 views and {_FEWEST_MODELS} models, got "
                f"{self.canaries}, {self.views} and {self.models}"
            )

    def run(
        self, train_fn: TrainFn, train: Dataset, *, seed: int = 0, progress: Progress = silent
    ) -> TaskResult:
        """Train the encoders and attack the first.

        Raises:
            InvalidInput: If there are fewer training images than canaries and two more.
        """
        pixels_of(train)
        canaries, members = self._draw(len(train), seed)
        rest = np.setdiff1d(np.arange(len(train)), canaries)
        views = self._views(train.subset(canaries), seed)
        scores = np.empty((self.models, len(canaries)))
        for number in range(self.models):
            progress(f"model {number}: training", number / self.models)
            rows = np.sort(np.concatenate([rest, canaries[members[number]]]))
            with train_fn(train.subset(rows), f"model{number}") as model:
                progress(f"model {number}: scoring", (number + 0.8) / self.models)
                scores[number] = self._similarity(model, views)
        target, other = self._attack(scores, members, 0), self._attack(scores, members, 1)
        truth = members[0]
        return TaskResult(
            "membership",
            _metrics(target, truth),
            {"other_model": _metrics(other, truth)},
            cost={"trainings": self.models, "images": len(canaries) * self.views * self.models},
            warnings=_notes(truth),
            items={"canaries": canaries, "members": members, "similarity": scores},
            figures=_figures(target, truth),
        )

    def _draw(self, n: int, seed: int) -> tuple[npt.NDArray[np.int64], Members]:
        """The canaries, and which of them each encoder is trained on."""
        if n < self.canaries + 2:
            raise InvalidInput(
                f"expected more training images than {self.canaries} canaries, got {n}; "
                "use fewer canaries"
            )
        rng = np.random.default_rng(seed)
        canaries = np.sort(rng.permutation(n)[: self.canaries])
        half = np.arange(self.canaries) < self.canaries // 2
        return canaries, np.stack([rng.permutation(half) for _ in range(self.models)])

    def _views(self, canaries: Dataset, seed: int) -> list[npt.NDArray[np.uint8]]:
        pixels = pixels_of(canaries)
        return [
            augmented(pixels, ids=canaries.ids, seed=seed * self.views + view)
            for view in range(self.views)
        ]

    def _similarity(self, model: Embedder, views: list[npt.NDArray[np.uint8]]) -> Scores:
        return view_similarity(np.stack([model.embed(view) for view in views]))

    def _attack(
        self, similarity: npt.NDArray[np.float64], members: Members, victim: int
    ) -> dict[str, Scores]:
        """Scores of the canaries, higher for members of the victim's training images.

        The target's own scores are never among those of the other encoders: whoever attacks
        another encoder could have trained all but the target.
        """
        shadows = [m for m in range(self.models) if m not in (0, victim)]
        scaled = -np.log(1 - similarity + _TINY)
        ratio = likelihood_ratio(scaled[victim], scaled[shadows], members[shadows])
        return {"similarity": similarity[victim], "likelihood": ratio}


def view_similarity(views: npt.NDArray[np.floating]) -> Scores:
    """Mean cosine over all pairs of views of each image.

    Args:
        views: (v, n, d) unit vectors, v at least 2.

    Returns:
        (n,), from -1 to 1.
    """
    count = len(views)
    total = views.sum(axis=0, dtype=np.float64)
    squares = (views.astype(np.float64) ** 2).sum(axis=(0, 2))
    # |sum z|^2 = sum |z|^2 + sum over ordered pairs of their products.
    pairs = (total**2).sum(axis=1) - squares
    return np.asarray(pairs / (count * (count - 1)))


def likelihood_ratio(target: Scores, others: Scores, members: Members) -> Scores:
    """Log-likelihood ratio of "trained on" over "not" for the target's score of each canary.

    log N(x; mu_in, s^2) - log N(x; mu_out, s^2) = ((x - mu_out)^2 - (x - mu_in)^2) / 2 s^2,
    with both means per canary and one variance for all, since few encoders give none per
    canary (Carlini et al. 2022, section IV-C). Where a canary was in all encoders or in none,
    the missing mean is the other one moved by the mean gap of the rest.

    Args:
        target: (n,) scores of the encoder that is attacked.
        others: (m, n) those of other encoders, m at least 2.
        members: (m, n) whether the canary was among their training images.
    """
    inside = _means(others, members)
    outside = _means(others, ~members)
    both = np.isfinite(inside) & np.isfinite(outside)
    gap = float((inside - outside)[both].mean()) if both.any() else 0.0
    inside = np.where(np.isfinite(inside), inside, outside + gap)
    outside = np.where(np.isfinite(outside), outside, inside - gap)
    residuals = others - np.where(members, inside, outside)
    # One degree of freedom is lost for each mean that was estimated.
    means = members.any(axis=0).astype(int) + (~members).any(axis=0)
    freedom = max(1, others.size - int(means.sum()))
    variance = max(float((residuals**2).sum()) / freedom, _TINY**2)
    ratio: Scores = ((target - outside) ** 2 - (target - inside) ** 2) / (2 * variance)
    return ratio


def _means(values: Scores, chosen: Members) -> Scores:
    """Mean over the chosen encoders, (n,); not a number where there is none."""
    counts = chosen.sum(axis=0)
    totals = np.where(chosen, values, 0.0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _metrics(scores: dict[str, Scores], truth: npt.NDArray[np.bool_]) -> Metrics:
    """AUROC, and the rates at each threshold."""
    metrics: Metrics = {}
    for attack, values in scores.items():
        found = delong(values[~truth], values[truth])
        metrics[f"{attack}.auroc"] = Metric(
            found.value, found.ci, len(values), "fraction", False, found.method
        )
        for name, rate in FPRS.items():
            allowed = math.floor(rate * int((~truth).sum()) + _TINY)
            if allowed < 1:
                continue
            threshold = np.sort(values[~truth])[::-1][allowed]
            metrics[f"{attack}.tpr_at_fpr_{name}"] = _share(values[truth] > threshold)
            metrics[f"{attack}.fpr_at_fpr_{name}"] = _share(values[~truth] > threshold)
    return metrics


def _share(passed: npt.NDArray[np.bool_]) -> Metric:
    ci = clopper_pearson(int(passed.sum()), len(passed))
    return Metric(float(passed.mean()), ci, len(passed), "fraction", False, "clopper_pearson")


def _notes(truth: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    held_out = int((~truth).sum())
    missing = [
        f"no rates at a false-positive rate of {rate:g}: expected at least {1 / rate:.0f} "
        f"held-out canaries, got {held_out}"
        for rate in FPRS.values()
        if rate * held_out < 1
    ]
    return (
        "the canaries are ordinary images: one that stands out may be easier to tell",
        *missing,
    )


def _figures(
    scores: dict[str, Scores], truth: npt.NDArray[np.bool_]
) -> dict[str, dict[str, object]]:
    return {
        name: histogram(
            {"trained on": values[truth], "held out": values[~truth]}, f"Score: {name}"
        )
        for name, values in scores.items()
    }
