"""Attack: the contract, and the final caller that alone decides what a success is.

A method searches and returns candidates. The caller projects them onto the threat, rounds them
to the 8-bit pixels that the server will really receive, asks the served model again, and counts
success from that answer only. A buggy method can be weak; it cannot report a false success.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.errors import BudgetExhausted, InvalidInput
from embedkit.evaluate.oracle import Oracle, VictimHead
from embedkit.evaluate.threat import Candidates, Threat
from embedkit.registry import Registry
from embedkit.types import Embedder, Embeddings, Images, Scores, Usage

if TYPE_CHECKING:
    from embedkit.evaluate.surrogate import TorchEmbedder

__all__ = [
    "Attack",
    "Found",
    "Keys",
    "Need",
    "Outcome",
    "Problem",
    "Target",
    "attacks",
    "keys_of",
    "run_attack",
    "uniforms",
]

Need = Literal["scores", "decisions", "gradient"]

Keys = npt.NDArray[np.uint64]
"""One random 64-bit key per image."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAM = np.uint64(0xD1342543DE82EF95)


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


attacks: Registry[type[Attack]] = Registry("embedkit.evaluate.attacks", "attack")
"""Every attack by name; ``attacks.get(name)()`` is the attack with its default settings."""


@dataclass(frozen=True)
class Outcome:
    """What the final caller verified.

    Attributes:
        adversarial: The attacked images as sent, (n, h, w, c) uint8, inside the threat.
        success: Whether the victim was fooled by them, (n,).
        distances: Distance from the original in the threat's norm, (n,) grey levels.
        candidates: The same before rounding, projected onto the threat, (n, h, w, c) float32.
        embeddings: What the victim made of ``adversarial``, (n, d).
        queries: Images the attack sent per attacked image, (n,); verification not counted.
        usage: Totals of the attack's own queries.
        exhausted: Whether a method was cut off at the query limit.
        gradient_norms: As in ``Found``.
    """

    adversarial: Images
    success: npt.NDArray[np.bool_]
    distances: Scores
    candidates: Candidates
    embeddings: Embeddings
    queries: npt.NDArray[np.int64]
    usage: Usage
    exhausted: bool
    gradient_norms: Scores | None = None


def run_attack(method: Attack, target: Target, threat: Threat, *, seed: int = 0) -> Outcome:
    """Run a method against a target and verify what it claims.

    Args:
        method: The search.
        target: Victim, head and images.
        threat: What the attacker may do.
        seed: Root of the method's randomness.

    Returns:
        Verified results, one per image.

    Raises:
        InvalidInput: If the method does not know the norm, or needs gradients and the target
            has no surrogate.
    """
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


def keys_of(ids: tuple[str, ...], seed: int) -> Keys:
    """Return one 64-bit key per id, (n,) uint64, that depends on the id and the seed alone."""
    digests = (hashlib.blake2b(f"{seed}\0{i}".encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def uniforms(keys: Keys, step: int, count: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers in [0, 1), (n, count), that depend on key and step alone.

    This is the counter form of splitmix64 (Steele 2014): one mixing per number, and no
    generator to carry along, so the images of a batch can come and go.

    Example:
        >>> keys = keys_of(("a", "b"), seed=0)
        >>> bool((uniforms(keys, 3, 2)[1] == uniforms(keys[1:], 3, 2)[0]).all())
        True
    """
    streams = _mixed(keys + np.full(1, step, np.uint64) * _STREAM)
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = _mixed(streams[:, None] + counters) >> np.uint64(11)
    return bits.astype(np.float64) / 2.0**53


def _mixed(state: Keys) -> Keys:
    """The output function of splitmix64; arithmetic is modulo 2**64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


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
        limit=threat.query_limit,
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
    adversarial = threat.quantise(found.candidates, target.images)
    embeddings = target.victim.embed(adversarial)
    margins = target.head.margins(embeddings, np.arange(len(adversarial)))
    return Outcome(
        adversarial,
        np.asarray(margins <= 0),
        threat.distances(adversarial, target.images),
        threat.project(found.candidates, target.images),
        embeddings,
        np.zeros(len(adversarial), np.int64) if oracle is None else oracle.meter.per_image,
        Usage() if oracle is None else oracle.meter.usage,
        exhausted,
        found.gradient_norms,
    )
