"""A trial of robustness: which images are attacked, and what is left standing after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import (
    Attack,
    Found,
    Need,
    Outcome,
    Problem,
    Target,
    run_attack,
    worst_of,
)
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.oracle import KnnHead
from embedkit.evaluate.statistics import Metric, bootstrap, content_seed, robust_accuracy
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import uniforms
from embedkit.types import Embeddings, Scores

__all__ = ["Attacked", "RandomNoise", "Trial", "attack_at", "mean_shift", "prepare_trial"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """The images examined, and those of them that the clean model handles correctly.

    Attributes:
        head: How the model decides; its labels are those of the attacked images.
        target: The model with the attacked images, those that it handles correctly.
        clean: What the model makes of these, (n, d).
        positions: Position in the test set of every image examined, (m,), m >= n.
        handled: Which of the examined images are handled correctly, (m,) with n true.
    """

    head: KnnHead
    target: Target
    clean: Embeddings
    positions: npt.NDArray[np.int64]
    handled: Flags

    def accuracy(self, success: Flags) -> Metric:
        """Share of examined images still handled correctly after an attack, with interval.

        Args:
            success: Which of the attacked images fooled the model, (n,).
        """
        standing = self.handled.copy()
        standing[self.handled] = ~success
        return robust_accuracy(standing)


@dataclass(frozen=True)
class Attacked:
    """What one kind of attack did at one radius.

    Attributes:
        outcome: The verified worst case.
        shift: Largest 1 - cosine between the clean and an attacked embedding, (n,).
        verified: Images sent to the model by the final caller, beyond the attack's queries.
        twin_success: Whether the twin was fooled before rounding, (n,); None without gradients.
    """

    outcome: Outcome
    shift: Scores
    verified: int
    twin_success: Flags | None = None


@dataclass(frozen=True)
class RandomNoise:
    """The baseline of every attack: each pixel moves by the radius in a random direction.

    It asks nothing and knows nothing; an attack that does no better has found nothing.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    norms: ClassVar[frozenset[str]] = frozenset({"linf"})

    def run(self, problem: Problem) -> Found:
        """Draw the noise of each image from its own key."""
        shape = problem.images.shape
        signs = np.where(uniforms(problem.keys, 0, int(np.prod(shape[1:]))) < 0.5, -1.0, 1.0)
        noise = problem.threat.radius_255 * signs.reshape(shape)
        return Found((problem.images + noise).astype(np.float32))


def prepare_trial(
    context: Context, which: Which, *, surrogate: TorchEmbedder | None = None
) -> Trial:
    """Examine the first test images of a seeded order; their number does not depend on results.

    Stopping at the n-th success instead would make the accuracy look better than it is.

    Args:
        context: Data, settings and models; both data sets have labels.
        which: The model under attack.
        surrogate: Its differentiable twin, or None.

    Raises:
        InvalidInput: If the model handles none of the test images correctly.
        NotFound: If the context has no such model.
    """
    bank = context.embeddings(which, context.train)
    labels = np.asarray(context.test.labels)
    everything = KnnHead(bank, np.asarray(context.train.labels), labels)
    order = np.random.default_rng(context.seed).permutation(len(labels))
    positions = order[: context.options.attack_images]
    examined = context.test.subset(positions)
    images = examined.arrays(context.spec)
    # As pixels, also where the test images are files: what is attacked is what was handled.
    clean = context.embedder(which).embed(images)
    handled = everything.decide(clean) == labels[positions]
    if not handled.any():
        raise InvalidInput(
            f"expected test images that {which} handles correctly, got none of {len(handled)}"
        )
    head = KnnHead(bank, everything.bank_labels, labels[positions][handled])
    ids = tuple(str(examined.ids[i]) for i in np.flatnonzero(handled))
    target = Target(context.embedder(which), head, images[handled], ids, surrogate)
    return Trial(head, target, clean[handled], positions, handled)


def attack_at(
    trial: Trial, methods: Sequence[Attack], threat: Threat, *, seed: int
) -> Attacked:
    """Run every method and keep, image by image, the worst that the model has verified.

    Args:
        trial: What is attacked.
        methods: At least one.
        threat: What the attacker may do.
        seed: Root of the methods' randomness.
    """
    outcomes = [run_attack(method, trial.target, threat, seed=seed) for method in methods]
    shifts = [
        1 - (trial.clean.astype(np.float64) * outcome.embeddings).sum(axis=1)
        for outcome in outcomes
    ]
    surrogate = trial.target.surrogate
    rows = np.arange(len(trial.clean))
    fooled = [
        trial.head.margins(surrogate.embed_levels(outcome.candidates), rows) <= 0
        for method, outcome in zip(methods, outcomes, strict=True)
        if surrogate is not None and "gradient" in method.needs
    ]
    return Attacked(
        reduce(worst_of, outcomes),
        np.max(shifts, axis=0),
        len(methods) * len(rows),
        np.any(fooled, axis=0) if fooled else None,
    )


def mean_shift(shifts: Scores) -> Metric:
    """The mean of 1 - cosine over the attacked images, with a bootstrap interval."""
    n = len(shifts)
    seed = content_seed("cosine_shift", n, shifts)
    (ci,) = bootstrap(lambda counts: np.array([counts[0] @ shifts / n]), [n], seed=seed)
    return Metric(
        float(shifts.mean()), ci, n, "cosine", higher_is_better=False, ci_method="bootstrap"
    )
