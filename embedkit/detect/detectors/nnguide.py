"""Nearest-neighbour guidance of the energy (Park, Jung and Teoh, ICCV 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import log_sum_exp, logits_of
from embedkit.detect.vectors import in_blocks, keep, largest, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["FittedNNGuide", "NNGuide"]


@detectors.register("nnguide")
@dataclass(frozen=True)
class NNGuide:
    """Confidence of the head, weighed by similarity to known images it is confident of.

    score(z) = -E(z) mean of the k largest s_i, with E(z) = log sum_c exp(l_c) and
    s_i = (z . z_i) E(z_i) over unit vectors.

    Attributes:
        k: Neighbours of the mean; the paper takes 10.
        max_bank: Known images that are kept, a choice by their content; 0 keeps all. The paper
            keeps 1 % of ImageNet, which is 12,000.
    """

    k: int = 10
    max_bank: int = 10_000

    def __post_init__(self) -> None:
        if self.k < 1 or (0 < self.max_bank < self.k) or self.max_bank < 0:
            raise InvalidInput(
                "expected k >= 1 and max_bank 0 or at least k, "
                f"got k={self.k} and max_bank={self.max_bank}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Embeddings and logits."""
        return frozenset({"embeddings", "logits"})

    def fit(self, observation: Observation) -> "FittedNNGuide":
        """Keep the known images' unit vectors, each scaled by its energy.

        Raises:
            InvalidInput: If there are fewer than k images or no logits.
        """
        found, logits = unit(vectors(observation, "embeddings")), logits_of(observation)
        if len(found) < self.k:
            raise InvalidInput(
                f"expected at least k={self.k} known images, got {len(found)}; "
                "give more images or a smaller k"
            )
        kept = keep(found, self.max_bank)
        energies = log_sum_exp(logits[kept]).astype(np.float32)
        return FittedNNGuide(found[kept] * energies[:, None], self.k, logits.shape[1])

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedNNGuide":
        """Return the detector that gave ``state``."""
        bank = np.asarray(state["bank"], dtype=np.float32)
        k, classes = (int(np.asarray(state[name]).item()) for name in ("k", "classes"))
        if bank.ndim != 2 or not 1 <= k <= len(bank):
            raise ValueError(f"expected a bank (m, d) with m >= k={k}, got {bank.shape}")
        return FittedNNGuide(bank, k, classes)


@dataclass(frozen=True)
class FittedNNGuide:
    """The scaled bank.

    Attributes:
        bank: (m, d) float32, unit vectors times their energies.
        k: Neighbours of the mean, from 1 to m.
        classes: c of the logits.
    """

    bank: Embeddings
    k: int
    classes: int

    @property
    def needs(self) -> frozenset[str]:
        """Embeddings and logits."""
        return frozenset({"embeddings", "logits"})

    def score(self, observation: Observation) -> Scores:
        """Return minus the guided energy, (n,)."""
        found = unit(queries(observation, "embeddings", self.bank.shape[1]))
        logits = logits_of(observation, self.classes)
        return in_blocks(self._block, found, logits, row_bytes=8 * len(self.bank))

    def state(self) -> State:
        """The bank, k and the number of classes."""
        return {
            "bank": self.bank,
            "k": np.asarray(self.k, dtype=np.int64),
            "classes": np.asarray(self.classes, dtype=np.int64),
        }

    def _block(self, found: Embeddings, logits: npt.NDArray[np.float32]) -> Scores:
        similarity = found @ self.bank.T
        nearest = np.take_along_axis(similarity, largest(similarity, self.k), axis=1)
        guidance = nearest.mean(axis=1, dtype=np.float64)
        return np.asarray(-guidance * log_sum_exp(logits))
