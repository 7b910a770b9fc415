"""Detector: how novel is an image, compared with the images a detector was fitted on.

Fitting and scoring are two types, so a score before a fit cannot be written down: a
``Detector`` is settings, a ``FittedDetector`` is settings plus state. The state is plain
arrays, which go into the bundle, and scoring needs numpy alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.errors import BundleDamaged, InvalidInput
from embedkit.registry import Registry
from embedkit.types import Embeddings, Labels, Scores

__all__ = [
    "ROWS",
    "Detector",
    "FittedDetector",
    "Observation",
    "State",
    "detectors",
    "load_detector",
]

State = dict[str, npt.NDArray[np.generic]]
"""Arrays that restore a fitted detector; the form of ``detectors/<name>.npz``."""


ROWS = ("embeddings", "features", "logits", "labels", "views")
"""The fields of an observation that have one row per image."""


@dataclass(frozen=True)
class Observation:
    """What a detector may look at, one row per image.

    Attributes:
        embeddings: (n, d) unit vectors.
        features: (n, d) features before normalisation, or None.
        logits: (n, c) of the bundle's head, or None.
        labels: (n,) classes, known while fitting only, or None.
        views: (n, v, d) unit vectors of v changed versions of each image, or None.
        head: The classifier that gave the logits, known while fitting only, or None.
    """

    embeddings: Embeddings
    features: Embeddings | None = None
    logits: npt.NDArray[np.float32] | None = None
    labels: Labels | None = None
    views: npt.NDArray[np.float32] | None = None
    head: Head | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) == 0:
            raise InvalidInput(
                f"expected embeddings (n, d) with n >= 1, got shape {self.embeddings.shape}"
            )
        for name in ROWS[1:]:
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.embeddings):
                raise InvalidInput(
                    f"expected {name} for {len(self.embeddings)} embeddings, got {len(rows)}"
                )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.embeddings)


class FittedDetector(Protocol):
    """A detector that knows the known images."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of an observation that ``score`` reads."""
        ...

    def score(self, observation: Observation) -> Scores:
        """Return the novelty of each image, (n,) float64; higher is more novel.

        Raises:
            InvalidInput: If a needed field is None or has another number of dimensions.
        """
        ...

    def state(self) -> State:
        """Arrays from which ``restore`` makes an equal detector."""
        ...


class Detector(Protocol):
    """Settings of a method, ready to be fitted."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of an observation that ``fit`` reads; ``labels`` are used where given."""
        ...

    def fit(self, observation: Observation) -> FittedDetector:
        """Learn what known images look like; the order of the images does not matter.

        Raises:
            InvalidInput: If there are too few images or a needed field is None.
        """
        ...

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> FittedDetector:
        """Return the detector that gave ``state``; arrays with other names are ignored.

        Raises:
            KeyError: If an array is missing.
        """
        ...


detectors: Registry[Callable[[], Detector]] = Registry("embedkit.detect.detectors", "detector")
"""Every detector by name; ``detectors.get(name)()`` has the default settings."""


def load_detector(name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> FittedDetector:
    """Return the fitted detector stored in a bundle as ``detectors/<name>.npz``.

    Raises:
        InvalidInput: If there is no method of that name.
        BundleDamaged: If the arrays are not this method's state.
    """
    detector = detectors.get(name)()
    try:
        return detector.restore(arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise BundleDamaged(
            f"expected the state of the detector {name!r}, got arrays {sorted(arrays)}: {error}"
        ) from error
