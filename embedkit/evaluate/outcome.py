"""What an attack came to, image by image, and how several attacks make one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.threat import Candidates
from embedkit.types import Embeddings, Images, Scores, Usage

__all__ = ["Outcome", "spread", "worst_of"]


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
        needed: Queries until the first image inside the threat that fooled the victim, (n,),
            and where there was none all ``queries``; None if every query was needed.
        nearest: Distance of the nearest image that fooled the victim, inside the threat or not,
            (n,), +inf where none did; None of attacks that ask nothing.
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
    needed: npt.NDArray[np.int64] | None = None
    nearest: Scores | None = None

    @property
    def queries_needed(self) -> npt.NDArray[np.int64]:
        """Queries until success, (n,); of an image that was not fooled, all it was given."""
        return self.queries if self.needed is None else self.needed


def worst_of(first: Outcome, second: Outcome) -> Outcome:
    """Return the stronger of two attacks on the same images, image by image.

    Where both or neither fooled the victim, the first one's image is kept. Queries add up.
    """
    take = second.success & ~first.success
    images = take[:, None, None, None]
    norms = [n for n in (first.gradient_norms, second.gradient_norms) if n is not None]
    nearest = [n for n in (first.nearest, second.nearest) if n is not None]
    return Outcome(
        np.where(images, second.adversarial, first.adversarial),
        first.success | second.success,
        np.where(take, second.distances, first.distances),
        np.where(images, second.candidates, first.candidates),
        np.where(take[:, None], second.embeddings, first.embeddings),
        first.queries + second.queries,
        Usage(
            first.usage.images + second.usage.images,
            first.usage.calls + second.usage.calls,
            first.usage.bytes_sent + second.usage.bytes_sent,
            first.usage.retries + second.usage.retries,
            first.usage.cache_hits + second.usage.cache_hits,
        ),
        first.exhausted or second.exhausted,
        np.max(norms, axis=0) if norms else None,
        np.where(first.success, first.queries_needed, first.queries + second.queries_needed),
        np.min(nearest, axis=0) if nearest else None,
    )


def spread(part: Outcome, rows: npt.NDArray[np.int64], whole: Outcome) -> Outcome:
    """Return the outcome of some images as one of all; the rest keep theirs, for no queries.

    Args:
        part: Of m images.
        rows: Which of the n images they are, (m,).
        whole: What is known of all n.
    """

    def filled(values: npt.NDArray[Any], rest: npt.NDArray[Any]) -> npt.NDArray[Any]:
        made = rest.copy()
        made[rows] = values
        return made

    n = len(whole.success)
    norms = part.gradient_norms
    return Outcome(
        filled(part.adversarial, whole.adversarial),
        filled(part.success, np.zeros(n, bool)),
        filled(part.distances, whole.distances),
        filled(part.candidates, whole.candidates),
        filled(part.embeddings, whole.embeddings),
        filled(part.queries, np.zeros(n, np.int64)),
        part.usage,
        part.exhausted,
        None if norms is None else filled(norms, np.full(n, -np.inf)),
        filled(part.queries_needed, np.zeros(n, np.int64)),
        None if part.nearest is None else filled(part.nearest, np.full(n, np.inf)),
    )
