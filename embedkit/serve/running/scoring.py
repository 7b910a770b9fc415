"""The bundle's own classifier and detector, applied to what the graph gave."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.detect.detector import FittedDetector, Observation, load_detector
from embedkit.detect.threshold import Threshold
from embedkit.runtime.local import LocalModel, softmax

__all__ = ["GRAPH_OUTPUTS", "ROW_NAMES", "Rows", "Scoring"]

Rows = dict[str, npt.NDArray[np.generic]]
"""Arrays by name, each with one row per image."""

# What each answer needs from the graph.
GRAPH_OUTPUTS: dict[str, frozenset[str]] = {
    "embedding": frozenset({"embedding"}),
    "features": frozenset({"features"}),
    "tokens": frozenset({"tokens"}),
    "class": frozenset({"features"}),
    "ood_score": frozenset({"embedding", "features"}),
}

# What each answer puts into the rows.
ROW_NAMES: dict[str, tuple[str, ...]] = {
    "embedding": ("embedding",),
    "features": ("features",),
    "tokens": ("tokens",),
    "class": ("labels", "probabilities"),
    "ood_score": ("ood_score",),
}


@dataclass(frozen=True)
class Scoring:
    """A head and a detector, either of which may be missing.

    Attributes:
        head: Linear classifier on ``features``.
        detector_name: Registry name of the detector, or empty.
        detector: Fitted novelty score.
        threshold: Score above which an image is novel, if the bundle has one.
    """

    head: Head | None = None
    detector_name: str = ""
    detector: FittedDetector | None = None
    threshold: Threshold | None = None

    @classmethod
    def load(cls, local: LocalModel) -> "Scoring":
        """Take a model's head and the first detector, by name, of its bundle.

        Raises:
            BundleDamaged: If the detector's file is not its state.
        """
        for name in local.bundle.names("detectors"):
            arrays = local.bundle.arrays(f"detectors/{name}.npz")
            threshold = Threshold.from_arrays(arrays)
            return cls(local.head, name, load_detector(name, arrays), threshold)
        return cls(local.head)

    @property
    def answers(self) -> tuple[str, ...]:
        """Of ``class`` and ``ood_score``, those that the bundle can give."""
        have = {"class": self.head, "ood_score": self.detector}
        return tuple(name for name, part in have.items() if part is not None)

    def add_to(self, rows: Rows, wants: frozenset[str]) -> None:
        """Add ``labels``, ``probabilities`` and ``ood_score`` to rows, as far as wanted.

        Args:
            rows: ``features`` and, for a novelty, ``embedding``; at least one row.
            wants: Only what ``answers`` lists.
        """
        logits = None
        if self.head is not None and not wants.isdisjoint(("class", "ood_score")):
            logits = self.head.logits(np.asarray(rows["features"], np.float32))
        if "class" in wants and logits is not None:
            rows["labels"] = logits.argmax(axis=1).astype(np.int64)
            rows["probabilities"] = softmax(logits)
        if "ood_score" in wants and self.detector is not None:
            observation = Observation(
                np.asarray(rows["embedding"], np.float32),
                np.asarray(rows["features"], np.float32),
                logits,
            )
            rows["ood_score"] = self.detector.score(observation)
