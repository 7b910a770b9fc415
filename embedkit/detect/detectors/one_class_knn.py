"""Neighbours around the centre of one class (Reiss and Hoshen, AAAI 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import Float64, in_blocks, keep, largest, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["FittedOneClassKNN", "OneClassKNN"]


@detectors.register("one_class_knn")
@dataclass(frozen=True)
class OneClassKNN:
    """Sum of squared distances to the nearest known images, as seen from their centre.

    With the centre c, the mean of the known unit vectors, an image is the direction
    t(z) = (z - c) / ||z - c|| (mean-shifted, equation 4); score(z) = the sum over the k nearest
    known images of ||t(z) - t(z_i)||^2. Meant for one known class, whose images are otherwise
    all in one direction.

    Attributes:
        k: Neighbours of the sum; the paper takes 2.
        shift: Take the centre off; without it this is the score of PANDA (CVPR 2021).
        max_bank: Known images that are kept, a choice by their content; 0 keeps all.
    """

    k: int = 2
    shift: bool = True
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

    def fit(self, observation: Observation) -> "FittedOneClassKNN":
        """Keep the known images' directions from their centre.

        Raises:
            InvalidInput: If there are fewer than k images.
        """
        found = unit(vectors(observation, "embeddings"))
        if len(found) < self.k:
            raise InvalidInput(
                f"expected at least k={self.k} known images, got {len(found)}; "
                "give more images or a smaller k"
            )
        centre = found.mean(axis=0, dtype=np.float64) * self.shift
        bank = found[keep(found, self.max_bank)]
        return FittedOneClassKNN(unit(bank - centre), centre, self.k)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedOneClassKNN":
        """Return the detector that gave ``state``."""
        bank = np.asarray(state["bank"], dtype=np.float32)
        centre = np.asarray(state["centre"], dtype=np.float64)
        k = int(np.asarray(state["k"]).item())
        if bank.ndim != 2 or centre.shape != bank.shape[1:] or not 1 <= k <= len(bank):
            raise ValueError(f"expected (m, d), (d,), m >= k={k}, got {bank.shape}")
        return FittedOneClassKNN(bank, centre, k)


@dataclass(frozen=True)
class FittedOneClassKNN:
    """Directions of the known images, and their centre.

    Attributes:
        bank: (m, d) float32 unit vectors.
        centre: (d,) float64; zero without the shift.
        k: Neighbours of the sum, from 1 to m.
    """

    bank: Embeddings
    centre: Float64
    k: int

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def score(self, observation: Observation) -> Scores:
        """Return the sum of the k squared distances, (n,) in [0, 4 k]."""
        found = unit(queries(observation, "embeddings", len(self.centre)))
        return in_blocks(self._block, found, row_bytes=8 * len(self.bank))

    def state(self) -> State:
        """The bank, the centre and k."""
        return {
            "bank": self.bank,
            "centre": self.centre,
            "k": np.asarray(self.k, dtype=np.int64),
        }

    def _block(self, found: Embeddings) -> Scores:
        directions = unit(found - self.centre)
        nearest = largest(directions @ self.bank.T, self.k)
        # 2 - 2s loses half of the digits near zero, so the chosen pairs are measured again.
        away = directions[:, None].astype(np.float64) - self.bank[nearest]
        return np.asarray((away**2).sum(axis=(1, 2)))
