"""Within which distance of an image is every other one certain to be decided alike?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import CHUNK, Context, Which
from embedkit.evaluate.measurement.changed.certificates import (
    Certificates,
    certificate_metrics,
)
from embedkit.evaluate.measurement.changed.smoothing import (
    Ball,
    certify_decision,
    certify_output,
    enclosing_ball,
    noisy,
)
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.pixels.views import per_image_rngs
from embedkit.evaluate.measurement.rows import probe_rows
from embedkit.evaluate.statistics import Metrics
from embedkit.evaluate.task import Figure, TaskResult, tasks
from embedkit.measures.knn import nearest, vote
from embedkit.runtime.probe import fit_probe
from embedkit.types import Embeddings, Labels, Pixels

__all__ = ["Certified"]

Decide = Callable[[Embeddings], Labels]

_K = 20
_TEMPERATURE = 0.07
_KINDS = ("smoothed_accuracy", "abstained", "mean_radius_255")


@tasks.register("certified")
@dataclass(frozen=True)
class Certified:
    """Randomised smoothing of the served model's decisions and of its embeddings.

    Noise of standard deviation sigma is added to each pixel, clipped and rounded to 8 bits, and
    the noisy images are sent. ``knn.<sigma>`` and ``linear.<sigma>`` certify the commonest
    decision (Cohen et al. 2019): ``.<radius>.certified_accuracy`` is the share of images whose
    smoothed decision is right and certain to stay so in that L2 distance. ``centre.<sigma>``
    certifies the smoothed embedding (Kumar and Goldstein 2021): ``.<radius>.output_shift`` is
    the mean bound on how far it moves, at most 2, which holds for any two unit vectors.

    What is certified is the smoothed model, which answers with the majority of many noisy
    copies; the served model's own single answer is not. The distance is between images at the
    model's size before noise is added; clipping and rounding come after the noise, are part of
    the function that is smoothed, and cost nothing of the guarantee. Each certificate is wrong
    with probability alpha at most, and that much is taken off the lower end of the intervals.

    Metrics per decision and sigma: ``smoothed_accuracy``, ``abstained``, ``mean_radius_255``
    (wrong ones count 0), per radius ``certified_accuracy``; ``centre``: ``abstained``,
    ``output_shift``. Baseline: ``raw_pixels`` with the same noise. Items: ``index``,
    ``labels``, ``<decision>.<sigma>.predicted``, ``.radius_255``, ``centre.<sigma>.bounds``.

    Attributes:
        bank: Most training images that vote; a seeded choice.
    """

    bank: int = 5000

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        names: list[str] = []
        for sigma in context.options.certified_sigmas_255:
            radii = [f"{radius:g}" for radius in context.options.certified_radii_255]
            for head in ("knn", "linear"):
                start = f"{head}.{sigma:g}"
                names += [f"{start}.{kind}" for kind in _KINDS]
                names += [f"{start}.{radius}.certified_accuracy" for radius in radii]
            names += [f"centre.{sigma:g}.{radius}.output_shift" for radius in radii]
            names.append(f"centre.{sigma:g}.abstained")
        return tuple(names)

    def run(self, context: Context) -> TaskResult:
        """Certify the first images of a seeded order, whatever the model makes of them."""
        options, warnings = context.options, _caveats(context)
        order = np.random.default_rng(context.seed).permutation(len(context.test))
        index = np.sort(order[: options.certified_images])
        part = context.test.subset(index)
        heads = self._heads(context, "served", ("knn", "linear"), warnings)
        found = _certify(context, "served", part, heads)
        metrics = certificate_metrics(found, options)
        items: dict[str, npt.NDArray[np.generic]] = {"index": index, **found.items()}
        baselines: dict[str, Metrics] = {}
        beside = None
        if heads and "raw_pixels" in context.baselines:
            work = partial(self._raw_pixels, context, part)
            beside = attempt("baseline raw_pixels", work, warnings)
        if beside is not None:
            baselines["raw_pixels"] = certificate_metrics(beside, options)
            items |= {f"raw_pixels.{name}": values for name, values in beside.items().items()}
        per_image = options.certified_select + options.certified_estimate
        queries = len(index) * per_image * len(options.certified_sigmas_255)
        return TaskResult(
            "certified",
            metrics,
            baselines,
            cost={"images": len(index), "queries": queries},
            warnings=tuple(warnings),
            items=items,
            figures=_figures(found),
        )

    def _heads(
        self, context: Context, which: Which, names: tuple[str, ...], warnings: list[str]
    ) -> Mapping[str, Decide]:
        """The decisions to be smoothed; none without labels."""
        problem = class_problem(context)
        if problem:
            warnings.append(f"no decisions: {problem}")
            return {}
        z, labels = context.embeddings(which, context.train), np.asarray(context.train.labels)
        classes = context.train.class_names
        made: dict[str, Decide] = {}
        if "knn" in names:
            rows = np.random.default_rng(context.seed).permutation(len(z))[: self.bank]
            bank, voters = z[np.sort(rows)], labels[np.sort(rows)]
            made["knn"] = partial(_vote, bank, voters, len(classes))
        if "linear" in names:
            rows = probe_rows(context)
            head = fit_probe(z[rows], labels[rows], class_names=classes, seed=context.seed).head
            made["linear"] = lambda embeddings: head.logits(embeddings).argmax(axis=1)
        return made

    def _raw_pixels(self, context: Context, part: Dataset) -> Certificates:
        heads = self._heads(context, "raw_pixels", ("knn",), [])
        return _certify(context, "raw_pixels", part, heads)


def _vote(bank: Embeddings, labels: Labels, classes: int, embeddings: Embeddings) -> Labels:
    rows, cosines = nearest(bank, embeddings, min(_K, len(bank)))
    return vote(labels[rows], cosines, temperature=_TEMPERATURE, classes=classes)


def _certify(
    context: Context, which: Which, part: Dataset, heads: Mapping[str, Decide]
) -> Certificates:
    """The certificates of every image, decision and sigma."""
    options = context.options
    labels = np.asarray(part.labels) if heads else np.zeros(len(part), np.int64)
    found = Certificates(labels, tuple(heads), options.certified_radii_255)
    images = part.arrays(context.spec)
    for sigma in options.certified_sigmas_255:
        # One draw per image and sigma, whatever the number of images.
        rngs = per_image_rngs(part.ids, f"certified {sigma:g}", context.seed)
        for number, (image, rng) in enumerate(zip(images, rngs, strict=True)):
            context.progress(f"{which}: noise of {sigma:g}/255", number / len(images))
            _certify_image(_Smoothed(context, which, image, sigma, rng), heads, found)
    return found


@dataclass(frozen=True)
class _Smoothed:
    """One image under noise."""

    context: Context
    which: Which
    image: Pixels
    sigma_255: float
    rng: np.random.Generator = field(repr=False)

    def embed(self, count: int) -> Embeddings:
        """Embeddings of fresh noisy copies, (count, d)."""
        copies = noisy(self.image, self.sigma_255, count, self.rng)
        return self.context.embedder(self.which).embed(copies)


def _certify_image(
    smoothed: _Smoothed, heads: Mapping[str, Decide], found: Certificates
) -> None:
    """Add one image's certificates to those that were found."""
    options, sigma = smoothed.context.options, smoothed.sigma_255
    first = smoothed.embed(options.certified_select)
    ball: Ball = enclosing_ball(first)
    chosen = {name: decide(first) for name, decide in heads.items()}
    answers: dict[str, list[Labels]] = {name: [] for name in heads}
    distances = []
    for start in range(0, options.certified_estimate, CHUNK):
        z = smoothed.embed(min(CHUNK, options.certified_estimate - start))
        distances.append(ball.distances(z))
        for name, decide in heads.items():
            answers[name].append(decide(z))
    for name in heads:
        decision = certify_decision(
            chosen[name], np.concatenate(answers[name]), sigma, options.certified_alpha
        )
        found.add_decision(name, sigma, decision)
    bounds = certify_output(
        ball,
        np.concatenate(distances),
        selected=options.certified_select,
        sigma_255=sigma,
        radii_255=options.certified_radii_255,
        alpha=options.certified_alpha,
    )
    found.add_bounds(sigma, bounds)


def _caveats(context: Context) -> list[str]:
    options = context.options
    return [
        f"certificates are of the smoothed model, from {options.certified_estimate} samples "
        f"per image; each is wrong with probability {options.certified_alpha:g} at most"
    ]


def _figures(found: Certificates) -> dict[str, Figure]:
    """Certified accuracy against the radius, per decision and sigma."""
    series = found.curves()
    if not series:
        return {}
    x = next(iter(series.values()))["x"]
    return {
        "certified": {
            "kind": "curve",
            "title": "Share of images that are certain to be right within a distance",
            "x": x,
            "series": {
                name: {key: curve[key] for key in ("y", "lo", "hi")}
                for name, curve in series.items()
            },
            "xlabel": "L2 distance / steps of 1/255",
            "ylabel": "certified accuracy",
        }
    }
