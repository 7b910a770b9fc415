"""The kNN vote as a victim's decision, with a margin that an attack can descend."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.oracle import Indices
from embedkit.measures.knn import blocks, largest, unit
from embedkit.types import Embeddings, Labels, Scores

__all__ = ["KnnHead"]


@dataclass(frozen=True)
class KnnHead:
    """Weighted vote of the nearest neighbours: the class of an embedding.

    The margin is the logarithm of the label's vote minus that of the strongest other class, in
    units of cosine / temperature. A class without a neighbour among the ``k`` is given the vote
    of its nearest image, which keeps the margin finite and leaves its sign alone: such an image
    is farther than all ``k``.

    Attributes:
        bank: Embeddings of the training images, (n, d) unit vectors.
        bank_labels: Their classes, (n,).
        labels: The class that each attacked image must keep, (number of attacked images,).
        k: Neighbours that vote; capped at n.
        temperature: A neighbour's vote is exp(cosine / temperature).
    """

    bank: Embeddings
    bank_labels: Labels
    labels: Labels
    k: int = 20
    temperature: float = 0.07

    per_image: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        if len(self.bank) == 0 or len(self.bank) != len(self.bank_labels):
            raise InvalidInput(
                f"expected one label per bank embedding and at least one, got "
                f"{len(self.bank)} embeddings and {len(self.bank_labels)} labels"
            )
        if self.k < 1 or self.temperature <= 0:
            raise InvalidInput(
                f"expected k >= 1 and temperature > 0, got {self.k}, {self.temperature}"
            )

    @cached_property
    def classes(self) -> int:
        """Number of classes in the bank and among the labels, counted from 0."""
        return int(max(self.bank_labels.max(), self.labels.max(initial=0))) + 1

    def decide(self, embeddings: Embeddings) -> Labels:
        """Return the class with the largest vote, (m,); ties go to the smallest index."""
        queries = unit(embeddings)
        decided = np.empty(len(queries), np.int64)
        for block in blocks(len(queries), len(self.bank)):
            votes, _ = self._votes(queries[block] @ self._unit_bank.T)
            decided[block] = votes.argmax(axis=1)
        return decided

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """Log vote of the label minus that of the strongest other class, (m,)."""
        queries, labels = unit(embeddings), self.labels[indices]
        margins = np.empty(len(queries))
        for block in blocks(len(queries), len(self.bank)):
            margins[block] = self._margins(queries[block] @ self._unit_bank.T, labels[block])
        return margins

    def _margins(self, cosines: npt.NDArray[np.float32], labels: Labels) -> Scores:
        votes, top = self._votes(cosines)
        kept = votes.argmax(axis=1) == labels
        rows = np.arange(len(votes))
        own = votes[rows, labels]
        votes[rows, labels] = 0
        other = votes.max(axis=1)
        with np.errstate(divide="ignore"):
            margins = np.log(own) - np.log(other)
        lonely = np.flatnonzero((own == 0) | (other == 0))
        if len(lonely):
            # Whoever has no vote, the label or all others, counts with its nearest image.
            is_own = self.bank_labels == labels[lonely, None]
            absent = own[lonely] == 0
            wanted = np.where(is_own == absent[:, None], cosines[lonely], -np.inf)
            best = wanted.max(axis=1) / self.temperature - top[lonely]
            present = np.log(own[lonely] + other[lonely])
            margins[lonely] = np.where(absent, best - present, present - best)
        # Ties and rounding: the sign has to say what the vote decided.
        smallest = np.finfo(np.float64).tiny
        signed = np.where(kept, np.maximum(margins, smallest), np.minimum(margins, 0.0))
        return np.asarray(signed, np.float64)

    def _votes(self, cosines: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], ...]:
        """Votes (m, c) of the k nearest in units of the nearest's, and its logarithm (m,)."""
        nearby = largest(cosines, min(self.k, len(self.bank)))
        logits = np.take_along_axis(cosines, nearby, axis=1) / np.float64(self.temperature)
        top = logits[:, 0]
        cells = self.bank_labels[nearby] + self.classes * np.arange(len(cosines))[:, None]
        votes = np.bincount(
            cells.ravel(),
            np.exp(logits - top[:, None]).ravel(),
            minlength=len(cosines) * self.classes,
        )
        return np.asarray(votes.reshape(len(cosines), self.classes), np.float64), top

    @cached_property
    def _unit_bank(self) -> Embeddings:
        return unit(self.bank)
