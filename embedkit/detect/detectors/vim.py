"""Virtual-logit matching (Wang, Li, Feng and Zhang, CVPR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import head_of, log_sum_exp, logits_of
from embedkit.detect.subspace import (
    Complement,
    fit_complement,
    origin_of,
    restore_complement,
)
from embedkit.detect.vectors import in_blocks, queries, vectors
from embedkit.types import Embeddings, Scores

__all__ = ["FittedViM", "ViM"]


@detectors.register("vim")
@dataclass(frozen=True)
class ViM:
    """The residual outside of the principal subspace, as a logit of its own beside the head's.

    score(z) = alpha ||R'(z - u)|| - log sum_c exp(l_c), with u = -pinv(W) b where all logits
    are 0, R the eigenvectors of E[(z - u)(z - u)'] beyond the largest, and alpha the mean
    largest logit of known images over their mean residual.

    Attributes:
        principal: Directions that count as known; 0 takes half of them below 768 dimensions,
            512 below 2048 and else 1000, as the paper's code does.
    """

    principal: int = 0

    @property
    def needs(self) -> frozenset[str]:
        """Features, logits and the head between them."""
        return frozenset({"features", "logits", "head"})

    def fit(self, observation: Observation) -> "FittedViM":
        """Find the directions in which known images hardly vary, and their weight.

        Raises:
            InvalidInput: If there is no head or no direction remains.
        """
        found, logits = vectors(observation, "features"), logits_of(observation)
        complement = fit_complement(found, origin_of(head_of(observation)), self.principal)
        residual = in_blocks(complement.residual, found, row_bytes=32 * found.shape[1])
        # Without any residual (more principal directions than the features use) it adds none.
        mean = float(residual.mean())
        alpha = float(logits.max(axis=1).mean(dtype=np.float64)) / mean if mean > 0 else 0.0
        return FittedViM(complement, alpha, logits.shape[1])

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedViM":
        """Return the detector that gave ``state``."""
        arrays = (np.asarray(state[name], np.float64) for name in ("origin", "directions"))
        alpha, classes = np.asarray(state["alpha"]).item(), np.asarray(state["classes"]).item()
        return FittedViM(restore_complement(*arrays), float(alpha), int(classes))


@dataclass(frozen=True)
class FittedViM:
    """The directions outside of the principal subspace and the weight of the virtual logit.

    Attributes:
        complement: Origin and directions.
        alpha: Weight of the residual.
        classes: c of the logits.
    """

    complement: Complement
    alpha: float
    classes: int

    @property
    def needs(self) -> frozenset[str]:
        """Features and logits."""
        return frozenset({"features", "logits"})

    def score(self, observation: Observation) -> Scores:
        """Return the virtual logit less the energy of the others, (n,), of any sign."""
        dim = len(self.complement.origin)
        found = queries(observation, "features", dim)
        logits = logits_of(observation, self.classes)
        return in_blocks(self._block, found, logits, row_bytes=32 * (dim + self.classes))

    def state(self) -> State:
        """Origin, directions, weight and the number of classes."""
        return {
            **self.complement.state(),
            "alpha": np.asarray(self.alpha, dtype=np.float64),
            "classes": np.asarray(self.classes, dtype=np.int64),
        }

    def _block(self, found: Embeddings, logits: npt.NDArray[np.float32]) -> Scores:
        return self.alpha * self.complement.residual(found) - log_sum_exp(logits)
