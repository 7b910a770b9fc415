"""Kernel density of known images (Rosenblatt, 1956; Parzen, 1962)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import in_blocks, keep, queries, rows_for, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["KDE", "FittedKDE"]

# A bank of copies of one image has no distance to take a bandwidth from.
_SMALLEST_BANDWIDTH = 1e-3


@detectors.register("kde")
@dataclass(frozen=True)
class KDE:
    """Minus the log density under a Gaussian kernel on every kept known image.

    score(z) = -log (1/N) sum_i exp(-||z - z_i||^2 / (2 h^2)) over unit vectors, up to a
    constant of the dimension. On the sphere it is the von Mises-Fisher density with
    concentration 1 / h^2.

    Attributes:
        bandwidth: h, a distance between unit vectors; 0 takes the median distance of a kept
            image to its nearest other.
        max_bank: Known images that are kept, a choice by their content; 0 keeps all.
    """

    bandwidth: float = 0.0
    max_bank: int = 10_000

    def __post_init__(self) -> None:
        if self.bandwidth < 0 or self.max_bank < 0:
            raise InvalidInput(
                "expected a bandwidth and max_bank of at least 0, "
                f"got {self.bandwidth} and {self.max_bank}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def fit(self, observation: Observation) -> "FittedKDE":
        """Keep unit vectors and choose the bandwidth.

        Raises:
            InvalidInput: If there is one image alone and no bandwidth.
        """
        found = unit(vectors(observation, "embeddings"))
        bank = found[keep(found, self.max_bank)]
        return FittedKDE(bank, self.bandwidth or _median_gap(bank))

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedKDE":
        """Return the detector that gave ``state``."""
        bank = np.asarray(state["bank"], dtype=np.float32)
        bandwidth = float(np.asarray(state["bandwidth"]).item())
        if bank.ndim != 2 or not len(bank) or not bandwidth > 0:
            raise ValueError(f"expected (m, d) and a bandwidth, got {bank.shape}, {bandwidth}")
        return FittedKDE(bank, bandwidth)


@dataclass(frozen=True)
class FittedKDE:
    """The kept known images and the width of the kernel.

    Attributes:
        bank: (m, d) float32 unit vectors.
        bandwidth: h, above 0.
    """

    bank: Embeddings
    bandwidth: float

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def score(self, observation: Observation) -> Scores:
        """Return minus the log density, (n,), up to a constant."""
        found = unit(queries(observation, "embeddings", self.bank.shape[1]))
        return in_blocks(self._block, found, row_bytes=8 * len(self.bank))

    def state(self) -> State:
        """Bank and bandwidth."""
        return {"bank": self.bank, "bandwidth": np.asarray(self.bandwidth, dtype=np.float64)}

    def _block(self, found: Embeddings) -> Scores:
        # ||z - z_i||^2 = 2 - 2 z.z_i; the shift by the nearest keeps the exponentials in range.
        similarity = found @ self.bank.T
        nearest = similarity.max(axis=1, keepdims=True)
        kernels = np.exp((similarity - nearest) / np.float32(self.bandwidth**2))
        density = np.log(kernels.mean(axis=1, dtype=np.float64))
        distance = 2 - 2 * nearest[:, 0].astype(np.float64)
        return np.asarray(distance / (2 * self.bandwidth**2) - density)


def _median_gap(bank: Embeddings) -> float:
    """Median distance of an image to its nearest other."""
    if len(bank) < 2:
        raise InvalidInput("expected at least 2 known images or a bandwidth, got one image")
    step = rows_for(8 * len(bank))
    nearest = []
    for start in range(0, len(bank), step):
        similarity = bank[start : start + step] @ bank.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        nearest.append(similarity.max(axis=1))
    closest = np.concatenate(nearest).astype(np.float64)
    gap = np.sqrt(np.clip(2 - 2 * np.median(closest), 0, None))
    return max(float(gap), _SMALLEST_BANDWIDTH)
