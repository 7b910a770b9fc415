"""Decisions beyond the kNN vote: linear classes, likeness, a search result, known or novel."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.detect.detector import FittedDetector, Observation
from embedkit.errors import InvalidInput
from embedkit.evaluate.oracle import Indices
from embedkit.measures.knn import nearest, unit
from embedkit.types import Embeddings, Labels, Scores

__all__ = [
    "CosineHead",
    "Keeper",
    "LinearHead",
    "OodHead",
    "Search",
    "SearchHead",
    "exact_search",
]

Ranking = tuple[Annotated[npt.NDArray[np.int64], "m k"], Annotated[Scores, "m k"]]
Search = Callable[[Embeddings, int], Ranking]
"""From queries (m, d) and k to rows of the gallery, best first (-1 for none), and scores."""


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on features: the class with the largest logit.

    Attributes:
        head: Its weights; what the victim returns must be ``features``.
        labels: The class that each attacked image must keep, (n,), as rows of the weights.
    """

    head: Head
    labels: Labels

    per_image: ClassVar[tuple[str, ...]] = ("labels",)

    def decide(self, embeddings: Embeddings) -> Labels:
        """Return the class with the largest logit, (m,); ties go to the smallest index."""
        return np.asarray(self.head.logits(embeddings).argmax(axis=1), dtype=np.int64)

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """Logit of the label minus the largest other one, (m,)."""
        logits = self.head.logits(embeddings).astype(np.float64)
        rows, labels = np.arange(len(logits)), self.labels[indices]
        own = logits[rows, labels]
        logits[rows, labels] = -np.inf
        margins = own - logits.max(axis=1, initial=-np.inf)
        # Equal logits go to the smaller class, and the sign has to say so.
        tied = (margins == 0) & (logits.argmax(axis=1) > labels)
        return np.where(tied, np.finfo(np.float64).tiny, margins)


@dataclass(frozen=True)
class CosineHead:
    """Success is an embedding that has turned away from the image's own clean one.

    Attributes:
        anchors: Clean embedding of each attacked image, (n, d) unit vectors.
        threshold: Cosine at or below which the attack has succeeded.
    """

    anchors: Embeddings
    threshold: float = 0.5

    per_image: ClassVar[tuple[str, ...]] = ("anchors",)

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """Cosine to the image's own clean embedding, above the threshold, (m,)."""
        anchors = self.anchors[indices].astype(np.float64)
        return np.asarray((anchors * embeddings).sum(axis=1) - self.threshold)


@runtime_checkable
class Keeper(Protocol):
    """A victim with collections, usually a served model."""

    def stored(self, vectors: Embeddings) -> AbstractContextManager[Search]:
        """Keep a gallery until the block ends; yields the victim's own search in it."""
        ...


def exact_search(gallery: Embeddings) -> Search:
    """Return exact search by cosine over unit vectors (g, d)."""

    def search(queries: Embeddings, k: int) -> Ranking:
        rows, cosines = nearest(gallery, queries, min(k, len(gallery)))
        return rows, cosines.astype(np.float64)

    return search


@dataclass(frozen=True)
class SearchHead:
    """Success is a search that no longer finds any of an image's own neighbours.

    The margin is the best similarity among the images that should be found minus the k-th
    largest among all others: positive exactly while one of them is among the first ``k``.

    Attributes:
        gallery: Embeddings of the stored images, (g, d) unit vectors.
        wanted: Rows of the gallery that should be found for each attacked image, (n, w).
        k: Places that are looked at.
        search: How the victim searches; exactly, unless said otherwise.
    """

    gallery: Embeddings
    wanted: npt.NDArray[np.int64]
    k: int = 10
    search: Search | None = field(default=None, compare=False)

    per_image: ClassVar[tuple[str, ...]] = ("wanted",)

    def __post_init__(self) -> None:
        if not 1 <= self.k <= len(self.gallery) - self.wanted.shape[1]:
            raise InvalidInput(
                f"expected k from 1 to the gallery's {len(self.gallery)} images without the "
                f"{self.wanted.shape[1]} wanted ones, got {self.k}"
            )

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """Best wanted similarity minus the k-th largest of the others, (m,)."""
        wanted = self.wanted[indices]
        search = self.search or exact_search(self.gallery)
        # The k-th other image is among as many more places as there are wanted ones.
        rows, scores = search(embeddings, self.k + wanted.shape[1])
        is_wanted = (rows[:, :, None] == wanted[:, None, :]).any(axis=2)
        others = np.sort(np.where(is_wanted, -np.inf, scores), axis=1)[:, -self.k]
        own = np.einsum("md,mwd->mw", unit(embeddings), self.gallery[wanted]).max(axis=1)
        found = np.where(is_wanted, scores, -np.inf).max(axis=1)
        margins: Scores = np.where(np.isfinite(found), found, own) - others
        # What counts is the list that the search returned, ties included.
        kept = is_wanted[:, : self.k].any(axis=1)
        tiny = np.finfo(np.float64).tiny
        signed: Scores = np.where(kept, np.maximum(margins, tiny), np.minimum(margins, 0.0))
        return signed


@dataclass(frozen=True)
class OodHead:
    """Whether an image is taken for a known one: a detector's score against its threshold.

    Attributes:
        detector: Fitted; higher scores are more novel.
        threshold: Scores above it are novel.
        head: The classifier whose logits the detector needs, or None.
        known: Whether each attacked image is a known one, (n,): those the attack pushes above
            the threshold (induction), the others below it (evasion).
    """

    detector: FittedDetector
    threshold: float
    head: Head | None
    known: npt.NDArray[np.bool_]

    per_image: ClassVar[tuple[str, ...]] = ("known",)

    @property
    def output(self) -> Literal["embedding", "features"]:
        """What the victim has to return."""
        return "embedding" if self.detector.needs <= {"embeddings"} else "features"

    def scores(self, embeddings: Embeddings) -> Scores:
        """Novelty of what the victim returned, (m,)."""
        features = logits = None
        if self.output == "features":
            features = embeddings
            logits = None if self.head is None else self.head.logits(embeddings)
        return self.detector.score(
            Observation(unit(embeddings), features, logits, head=self.head)
        )

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """Distance of the score from the threshold on the side where it should be, (m,)."""
        above = self.scores(embeddings) - self.threshold
        known = np.where(above > 0, -above, np.maximum(-above, np.finfo(np.float64).tiny))
        return np.where(self.known[indices], known, above)
