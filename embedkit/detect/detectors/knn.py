"""Distance to the k-th nearest known image (Sun, Ming, Zhu and Li, ICML 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import in_blocks, keep, largest, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["KNN", "FittedKNN"]


@detectors.register("knn")
@dataclass(frozen=True)
class KNN:
    """L2 distance between unit vectors to the k-th nearest known image.

    The score lies in [0, 2]; it is the plain distance, not its square.

    Attributes:
        k: Which neighbour, from 1. The paper takes 50 for CIFAR-sized sets.
        max_bank: Known images that are kept; 0 keeps all. A bundle wants a few thousand: each
            costs 4 bytes per dimension in the bundle and one dot product per scored image.
            The kept ones have the smallest hash of their own content, a pseudo-random choice
            that the order of the images cannot change. With fewer of them the k-th neighbour
            lies farther away, for known and novel images alike.
    """

    k: int = 50
    max_bank: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or (0 < self.max_bank < self.k) or self.max_bank < 0:
            raise InvalidInput(
                "expected k >= 1 and max_bank 0 or at least k, "
                f"got k={self.k} and max_bank={self.max_bank}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def fit(self, observation: Observation) -> "FittedKNN":
        """Keep the known images' unit vectors.

        Raises:
            InvalidInput: If there are fewer than k images.
        """
        if len(observation) < self.k:
            raise InvalidInput(
                f"expected at least k={self.k} known images, got {len(observation)}; "
                "give more images or a smaller k"
            )
        bank = unit(vectors(observation, "embeddings"))
        return FittedKNN(bank[keep(bank, self.max_bank)], self.k)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedKNN":
        """Return the detector that gave ``state``."""
        bank = np.asarray(state["bank"], dtype=np.float32)
        k = int(np.asarray(state["k"], dtype=np.int64))
        if bank.ndim != 2 or not 1 <= k <= len(bank):
            raise ValueError(f"expected a bank (m, d) with m >= k={k}, got {bank.shape}")
        return FittedKNN(bank, k)


@dataclass(frozen=True)
class FittedKNN:
    """The known images and the rank of the neighbour.

    Attributes:
        bank: (m, d) float32 unit vectors.
        k: Which neighbour, from 1 to m.
    """

    bank: Embeddings
    k: int

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def score(self, observation: Observation) -> Scores:
        """Return the distance to the k-th nearest known image, (n,) in [0, 2]."""
        found = unit(queries(observation, "embeddings", self.bank.shape[1]))
        return in_blocks(self._distances, found, row_bytes=8 * len(self.bank))

    def state(self) -> State:
        """The bank and k."""
        return {"bank": self.bank, "k": np.asarray(self.k, dtype=np.int64)}

    def _distances(self, found: Embeddings) -> Scores:
        kth = largest(found @ self.bank.T, self.k)[:, -1]
        # sqrt(2 - 2s) loses half of the digits near zero, so the chosen pair is measured again.
        difference = found.astype(np.float64) - self.bank[kth]
        return np.asarray(np.linalg.norm(difference, axis=1))
