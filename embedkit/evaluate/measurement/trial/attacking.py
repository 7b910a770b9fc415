"""A trial of robustness: which images are attacked, and what is left standing after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.attack import Found, Method, Need, Problem, Target, run_attack
from embedkit.evaluate.measurement.victim.channel import Encoding, encoded
from embedkit.evaluate.oracle import VictimHead
from embedkit.evaluate.outcome import Outcome, worst_of
from embedkit.evaluate.statistics import (
    FEW,
    CiMethod,
    Metric,
    bootstrap,
    constant_interval,
    content_seed,
    robust_accuracy,
)
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import uniforms
from embedkit.types import Embedder, Embeddings, Labels, Scores

__all__ = ["Attacked", "RandomNoise", "Runs", "Trial", "attack_at", "mean_shift"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """The images examined, and those of them that the clean model handles correctly.

    Attributes:
        head: How the model decides, about the attacked images.
        target: The model with the attacked images, those that it handles correctly.
        clean: What the model makes of these, (n, d).
        positions: Position in their data set of every image examined, (m,), m >= n.
        handled: Which of the examined images are handled correctly, (m,) with n true.
        victim: The model behind the encodings: takes files as well as pixels.
        jpeg_quality: Of the files that attacked images are sent as once more.
    """

    head: VictimHead
    target: Target
    clean: Embeddings
    positions: npt.NDArray[np.int64]
    handled: Flags
    victim: Embedder | None = None
    jpeg_quality: int = 75

    def accuracy(self, success: Flags) -> Metric:
        """Share of examined images still handled correctly after an attack, with interval.

        Args:
            success: Which of the attacked images fooled the model, (n,).
        """
        standing = self.handled.copy()
        standing[self.handled] = ~success
        return robust_accuracy(standing)

    @property
    def labels(self) -> Labels | None:
        """Class of each attacked image, (n,); None where the head knows none."""
        labels: Labels | None = getattr(self.head, "labels", None)
        return labels


@dataclass(frozen=True)
class Attacked:
    """What one kind of attack did under one threat.

    Attributes:
        outcome: The verified worst case; its success is that of 8-bit pixels.
        shift: Largest 1 - cosine between the clean and an attacked embedding, (n,).
        verified: Images sent to the model by the final caller, beyond the attack's queries.
        threat: What the attacker was allowed.
        stages: Success by stage, (n,) each: ``twin`` (before rounding) and ``twin_uint8`` for
            attacks with gradients, ``png`` and ``jpeg`` where the model takes files.
    """

    outcome: Outcome
    shift: Scores
    verified: int
    threat: Threat
    stages: Mapping[str, Flags] = field(default_factory=dict)


Runs = Mapping[str, Attacked]
"""What one attack did under each threat, by the threat's name, smallest first."""


@dataclass(frozen=True)
class RandomNoise:
    """The baseline of every attack: a change as large as the threat allows, at random.

    It asks nothing and knows nothing; an attack that does no better has found nothing.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "patch"})

    def run(self, problem: Problem) -> Found:
        """Draw the noise of each image from its own key."""
        images, threat = problem.images, problem.threat
        n, height, width, channels = images.shape
        draws = uniforms(problem.keys, 0, height * width * channels).reshape(images.shape)
        signs = np.where(draws < 0.5, -1.0, 1.0)
        if threat.norm == "linf":
            return Found((images + threat.radius_255 * signs).astype(np.float32))
        if threat.norm == "l2":
            length = np.sqrt(height * width * channels)
            return Found((images + threat.radius_255 / length * signs).astype(np.float32))
        side = min(threat.side_px, height, width)
        place = uniforms(problem.keys, 1, 2)
        noisy = images.astype(np.float32)
        for index in range(n):
            top = int(place[index, 0] * (height - side + 1))
            left = int(place[index, 1] * (width - side + 1))
            window = slice(top, top + side), slice(left, left + side)
            noisy[index][window] = 255 * draws[index][window]
        return Found(noisy)


def attack_at(
    trial: Trial, methods: Sequence[Method], threat: Threat, *, seed: int
) -> Attacked:
    """Run every method and keep, image by image, the worst that the model has verified.

    Args:
        trial: What is attacked.
        methods: At least one.
        threat: What the attacker may do.
        seed: Root of the methods' randomness.
    """
    outcomes = [run_attack(method, trial.target, threat, seed=seed) for method in methods]
    worst = reduce(worst_of, outcomes)
    stages = _twin_stages(trial, methods, outcomes) | _file_stages(trial, worst)
    return Attacked(
        worst,
        np.max([_shift(trial.clean, outcome.embeddings) for outcome in outcomes], axis=0),
        len(trial.clean) * (len(methods) + len(stages.keys() & {"png", "jpeg"})),
        threat,
        stages,
    )


def _shift(clean: Embeddings, attacked: Embeddings) -> Scores:
    """1 - cosine of each pair, (n,)."""
    first, second = clean.astype(np.float64), attacked.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray(1 - (first * second).sum(axis=1) / np.maximum(lengths, 1e-12))


def _twin_stages(
    trial: Trial, methods: Sequence[Method], outcomes: Sequence[Outcome]
) -> dict[str, Flags]:
    """Success on the twin, before and after rounding; empty without attacks by gradient."""
    surrogate = trial.target.surrogate
    white = [o for m, o in zip(methods, outcomes, strict=True) if "gradient" in m.needs]
    if surrogate is None or not white:
        return {}
    rows = np.arange(len(trial.clean))

    def fooled(embeddings: Embeddings) -> Flags:
        return np.asarray(trial.head.margins(embeddings, rows) <= 0)

    floats = [fooled(surrogate.embed_levels(o.candidates)) for o in white]
    rounded = [fooled(surrogate.embed(o.adversarial)) for o in white]
    return {"twin": np.any(floats, axis=0), "twin_uint8": np.any(rounded, axis=0)}


def _file_stages(trial: Trial, outcome: Outcome) -> dict[str, Flags]:
    """Success of the same images sent as files, which the model decodes."""
    if trial.victim is None:
        return {}
    rows = np.arange(len(trial.clean))
    stages: dict[str, Flags] = {}
    names: tuple[Encoding, ...] = ("png", "jpeg")
    for name in names:
        files = encoded(outcome.adversarial, name, quality=trial.jpeg_quality)
        margins = trial.head.margins(trial.victim.embed(files), rows)
        stages[name] = np.asarray(margins <= 0)
    return stages


def mean_shift(shifts: Scores) -> Metric:
    """The mean of 1 - cosine over the attacked images, with a bootstrap interval from 20 on."""
    n, value, ci = len(shifts), float(shifts.mean()), None
    method: CiMethod = ""
    if n >= FEW and shifts.min() == shifts.max():
        ci, method = constant_interval(value, n, least=0, most=2), "clopper_pearson"
    elif n >= FEW:
        seed = content_seed("cosine_shift", n, shifts)
        (ci,) = bootstrap(lambda counts: np.array([counts[0] @ shifts / n]), [n], seed=seed)
        method = "bootstrap"
    return Metric(value, ci, n, "cosine", higher_is_better=False, ci_method=method)
