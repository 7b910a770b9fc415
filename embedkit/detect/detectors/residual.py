"""Distance from the subspace that known images span (Wang, Li, Feng and Zhang, CVPR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.subspace import Complement, fit_complement, restore_complement
from embedkit.detect.vectors import Source, in_blocks, queries, vectors
from embedkit.types import Scores

__all__ = ["FittedResidual", "Residual"]


@detectors.register("residual")
@dataclass(frozen=True)
class Residual:
    """Length of an image's part outside of the principal subspace of known images.

    score(z) = ||R'(z - u)||, with u the mean of known images and R the eigenvectors of
    E[(z - u)(z - u)'] beyond the largest. Needs no head, unlike ``vim``.

    Attributes:
        source: ``features`` before normalisation (as in the paper), or unit ``embeddings``.
        principal: Directions that count as known; 0 takes half of them below 768 dimensions,
            512 below 2048 and else 1000, as the paper's code does.
    """

    source: Source = "embeddings"
    principal: int = 0

    @property
    def needs(self) -> frozenset[str]:
        """The source."""
        return frozenset({self.source})

    def fit(self, observation: Observation) -> "FittedResidual":
        """Find the directions in which known images hardly vary.

        Raises:
            InvalidInput: If there are no more dimensions than principal ones.
        """
        found = vectors(observation, self.source)
        mean = found.mean(axis=0, dtype=np.float64)
        return FittedResidual(fit_complement(found, mean, self.principal), self.source)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedResidual":
        """Return the detector that gave ``state``."""
        arrays = (np.asarray(state[name], np.float64) for name in ("origin", "directions"))
        source: Source = "features" if bool(state["on_features"]) else "embeddings"
        return FittedResidual(restore_complement(*arrays), source)


@dataclass(frozen=True)
class FittedResidual:
    """The directions outside of the principal subspace.

    Attributes:
        complement: Origin and directions.
        source: Which field of an observation is scored.
    """

    complement: Complement
    source: Source = "embeddings"

    @property
    def needs(self) -> frozenset[str]:
        """The source."""
        return frozenset({self.source})

    def score(self, observation: Observation) -> Scores:
        """Return the length outside of the subspace, (n,), at least 0."""
        dim = len(self.complement.origin)
        found = queries(observation, self.source, dim)
        return in_blocks(self.complement.residual, found, row_bytes=32 * dim)

    def state(self) -> State:
        """Origin, directions and the source."""
        return {
            **self.complement.state(),
            "on_features": np.asarray(self.source == "features"),
        }
