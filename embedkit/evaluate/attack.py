"""Attack: the contract, and the final caller that alone decides what a success is.

A method searches and returns candidates. The caller projects them onto the threat, rounds them
to the 8-bit pixels that the server will really receive, asks the served model again, and counts
success from that answer only. A buggy method can be weak; it cannot report a false success.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.errors import BudgetExhausted, InvalidInput
from embedkit.evaluate.oracle import Oracle, VictimHead
from embedkit.evaluate.outcome import Outcome, spread, worst_of
from embedkit.evaluate.threat import Candidates, Threat
from embedkit.perturb.randomness import Keys, keys_of
from embedkit.registry import Registry
from embedkit.types import Embedder, Images, Scores, Usage

if TYPE_CHECKING:
    from embedkit.evaluate.surrogate import TorchEmbedder

__all__ = [
    "Attack",
    "Ensemble",
    "Found",
    "Method",
    "Need",
    "Problem",
    "Target",
    "attacks",
    "run_attack",
    "subset",
]

Need = Literal["scores", "decisions", "gradient"]


@dataclass(frozen=True)
class Target:
    """Who is attacked: the victim, how it decides, and the images it is attacked with.

    Attributes:
        victim: The served model; success is always its own answer.
        head: How it decides.
        images: Clean images at the model's size, (n, h, w, c) uint8.
        ids: A name per image; randomness is keyed by it, so results depend neither on the order
            of the images nor on which others are attacked with them.
        surrogate: Differentiable twin for attacks that need gradients, or None.
    """

    victim: Embedder
    head: VictimHead
    images: Images
    ids: tuple[str, ...]
    surrogate: "TorchEmbedder | None" = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or not len(self.images):
            raise InvalidInput(
                f"expected uint8 images (n, h, w, c), n >= 1, got {self.images.dtype} "
                f"{self.images.shape}"
            )
        if len(self.ids) != len(self.images):
            raise InvalidInput(
                f"expected one id per image, got {len(self.ids)} for {len(self.images)}"
            )


@dataclass(frozen=True)
class Problem:
    """What a method is given; it never sees the victim itself.

    Attributes:
        images: Clean images, (n, h, w, c) uint8.
        keys: One random 64-bit key per image, from the seed and the image's id, (n,) uint64.
        threat: The ball, and the queries allowed.
        head: How the victim decides; a white-box method may look inside.
        oracle: Counted answers, for methods that need ``scores`` or ``decisions``; else None.
        surrogate: Differentiable twin, for methods that need ``gradient``; else None.
    """

    images: Images
    keys: Keys
    threat: Threat
    head: VictimHead
    oracle: Oracle | None
    surrogate: "TorchEmbedder | None"


@dataclass(frozen=True)
class Found:
    """What a method returns.

    Attributes:
        candidates: Attacked pixels, (n, h, w, c) in grey levels; need not be rounded.
        gradient_norms: Largest gradient met for each image, (n,); None without gradients.
    """

    candidates: Candidates
    gradient_norms: Scores | None = None


class Attack(Protocol):
    """One search method: a frozen dataclass whose fields are its settings."""

    needs: ClassVar[frozenset[Need]]
    norms: ClassVar[frozenset[str]]

    def run(self, problem: Problem) -> Found:
        """Search.

        Raises:
            BudgetExhausted: If the queries ran out; the best image seen by the oracle counts.
        """
        ...


@runtime_checkable
class Ensemble(Protocol):
    """Several attacks in turn, each on the images that are still standing."""

    needs: ClassVar[frozenset[Need]]
    norms: ClassVar[frozenset[str]]

    def members(self, head: VictimHead, norm: str) -> tuple[Attack, ...]:
        """The attacks against such a head under a norm, in their order; at least one."""
        ...


Method = Attack | Ensemble

attacks: Registry[type[Attack] | type[Ensemble]] = Registry(
    "embedkit.evaluate.attacks", "attack"
)
"""Every attack by name; ``attacks.get(name)()`` is the attack with its default settings."""


Head = TypeVar("Head", bound=VictimHead)


def subset(head: Head, rows: npt.NDArray[np.int64]) -> Head:
    """Return a head about some of its images only.

    Args:
        head: A frozen dataclass that names its fields with one entry per attacked image in
            ``per_image``; without these it is about all images alike.
        rows: Which images, (m,).
    """
    fields: tuple[str, ...] = getattr(head, "per_image", ())
    if not fields:
        return head
    changed: Any = {name: getattr(head, name)[rows] for name in fields}
    made: Head = replace(head, **changed)  # type: ignore[type-var]  # a dataclass if per_image
    return made


def run_attack(method: Method, target: Target, threat: Threat, *, seed: int = 0) -> Outcome:
    """Run a method against a target and verify what it claims.

    Args:
        method: The search, or several in turn.
        target: Victim, head and images.
        threat: What the attacker may do.
        seed: Root of the method's randomness.

    Returns:
        Verified results, one per image.

    Raises:
        InvalidInput: If the method does not know the norm, or needs gradients and the target
            has no surrogate.
    """
    if isinstance(method, Ensemble):
        return _run_in_turn(method, target, threat, seed)
    oracle = _oracle(method, target, threat)
    problem = Problem(
        target.images,
        keys_of(target.ids, seed),
        threat,
        target.head,
        oracle,
        target.surrogate if "gradient" in method.needs else None,
    )
    exhausted = False
    try:
        found = method.run(problem)
    except BudgetExhausted:
        if oracle is None:
            raise
        found, exhausted = Found(oracle.best.astype(np.float32)), True
    return _verified(found, target, threat, oracle, exhausted)


def _run_in_turn(method: Ensemble, target: Target, threat: Threat, seed: int) -> Outcome:
    """Each member attacks what the victim itself says is still standing."""
    if threat.norm not in method.norms:
        raise InvalidInput(
            f"expected a norm of {sorted(method.norms)} for {type(method).__name__}, got "
            f"{threat.norm!r}"
        )
    first, *others = method.members(target.head, threat.norm)
    worst = run_attack(first, target, threat, seed=seed)
    for member in others:
        rows = np.flatnonzero(~worst.success)
        if not len(rows):
            break
        spent = int(worst.queries.max(initial=0))
        limit = threat.query_limit
        left = threat if limit is None else replace(threat, query_limit=max(limit - spent, 1))
        if limit is not None and spent >= limit and member.needs & {"scores", "decisions"}:
            continue
        part = replace(
            target,
            head=subset(target.head, rows),
            images=target.images[rows],
            ids=tuple(target.ids[i] for i in rows),
        )
        found = run_attack(member, part, left, seed=seed)
        worst = worst_of(worst, spread(found, rows, worst))
    return worst


def _oracle(method: Attack, target: Target, threat: Threat) -> Oracle | None:
    name = type(method).__name__
    if threat.norm not in method.norms:
        raise InvalidInput(
            f"expected a norm of {sorted(method.norms)} for {name}, got {threat.norm!r}"
        )
    if "gradient" in method.needs and target.surrogate is None:
        raise InvalidInput(f"expected a surrogate, because {name} needs gradients, got none")
    asked = method.needs & {"scores", "decisions"}
    if not asked:
        return None
    return Oracle(
        target.victim,
        target.head,
        target.images,
        threat=threat,
        answers="scores" if "scores" in asked else "decisions",
    )


def _verified(
    found: Found, target: Target, threat: Threat, oracle: Oracle | None, exhausted: bool
) -> Outcome:
    """Project, round, ask the victim again, and only then count."""
    if found.candidates.shape != target.images.shape:
        raise InvalidInput(
            f"expected candidates {target.images.shape}, got {found.candidates.shape}"
        )
    # What the victim is asked from here on is not the attack's.
    usage = None if oracle is None else oracle.meter.usage
    adversarial = threat.quantise(found.candidates, target.images)
    embeddings = target.victim.embed(adversarial)
    success = np.asarray(target.head.margins(embeddings, np.arange(len(adversarial))) <= 0)
    outcome = Outcome(
        adversarial,
        success,
        threat.distances(adversarial, target.images),
        threat.project(found.candidates, target.images),
        embeddings,
        np.zeros(len(adversarial), np.int64),
        Usage(),
        exhausted,
        found.gradient_norms,
    )
    if oracle is None or usage is None:
        return outcome
    queries, first = oracle.meter.per_image, oracle.first_success
    return replace(
        outcome,
        queries=queries,
        usage=usage,
        needed=np.where(success & (first > 0), first, queries),
        nearest=oracle.nearest,
    )
