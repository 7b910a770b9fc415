"""Logits of an observation, and detectors that are a formula of one image's logits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.detect.detector import Observation, State
from embedkit.detect.vectors import Float64, in_blocks
from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = [
    "FittedRule",
    "Rule",
    "checked_temperature",
    "head_of",
    "log_sum_exp",
    "logits_of",
    "softmax",
]


def logits_of(observation: Observation, classes: int | None = None) -> npt.NDArray[np.float32]:
    """Return the (n, c) logits of an observation.

    Args:
        observation: What was observed.
        classes: The c that is expected; None takes any of at least 2.

    Raises:
        InvalidInput: If there are none, or of another number of classes, or not finite.
    """
    found = observation.logits
    if found is None:
        raise InvalidInput(
            "expected an observation with logits, got none; the bundle needs a head"
        )
    values = np.asarray(found, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] < 2 or classes not in (None, values.shape[1]):
        wanted = "at least 2" if classes is None else str(classes)
        raise InvalidInput(
            f"expected logits (n, c) of {wanted} dimensions, got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise InvalidInput("expected finite logits, got some that are not")
    return values


def head_of(observation: Observation) -> Head:
    """Return the head that gave the logits.

    Raises:
        InvalidInput: If there is none.
    """
    if observation.head is None:
        raise InvalidInput(
            "expected the head that gave the logits, got none; export with --head"
        )
    return observation.head


def log_sum_exp(logits: npt.NDArray[np.floating]) -> Float64:
    """Return log sum_c exp(l_c) of each row, (n,), without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def softmax(logits: npt.NDArray[np.floating]) -> Float64:
    """Return (n, c) probabilities in float64; each row sums to 1."""
    values = np.asarray(logits, dtype=np.float64)
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


class Rule(ABC):
    """A detector without anything to learn: one image's logits give its score.

    A subclass is a frozen dataclass of plain numbers, its settings.
    """

    @property
    def needs(self) -> frozenset[str]:
        """The logits alone."""
        return frozenset({"logits"})

    @abstractmethod
    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,); higher is more novel."""

    def fit(self, observation: Observation) -> "FittedRule":
        """Take the number of classes; there is nothing else to learn.

        Raises:
            InvalidInput: If there are no logits.
        """
        return FittedRule(self, logits_of(observation).shape[1])

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedRule":
        """Return the detector that gave ``state``."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # a dataclass
        settings = {name: np.asarray(state[name]).item() for name in names}
        return FittedRule(type(self)(**settings), int(np.asarray(state["classes"]).item()))


@dataclass(frozen=True)
class FittedRule:
    """A rule, and the number of classes that its logits have.

    Attributes:
        rule: The formula and its settings.
        classes: c of the logits.
    """

    rule: Rule
    classes: int

    @property
    def needs(self) -> frozenset[str]:
        """The logits alone."""
        return frozenset({"logits"})

    def score(self, observation: Observation) -> Scores:
        """Return the rule's score of each image, (n,)."""
        logits = logits_of(observation, self.classes)
        return in_blocks(self._block, logits, row_bytes=32 * self.classes)

    def state(self) -> State:
        """The rule's settings and the number of classes."""
        settings = asdict(self.rule)  # type: ignore[call-overload]  # every rule is a dataclass
        return {name: np.asarray(value) for name, value in settings.items()} | {
            "classes": np.asarray(self.classes, dtype=np.int64)
        }

    def _block(self, logits: npt.NDArray[np.float32]) -> Scores:
        return self.rule.novelty(logits.astype(np.float64))


def checked_temperature(temperature: float) -> float:
    """Return a temperature above 0.

    Raises:
        InvalidInput: If it is not.
    """
    if not 0 < temperature < np.inf:
        raise InvalidInput(f"expected a temperature above 0, got {temperature}")
    return temperature
