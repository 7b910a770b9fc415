"""Free energy of the logits (Liu, Wang, Owens and Li, NeurIPS 2020)."""

from dataclasses import dataclass

from embedkit.detect.detector import detectors
from embedkit.detect.logits import Rule, checked_temperature, log_sum_exp
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["Energy"]


@detectors.register("energy")
@dataclass(frozen=True)
class Energy(Rule):
    """Energy of an image under the head: score(x) = -T log sum_c exp(l_c / T).

    In the unit of the logits, of any sign.

    Attributes:
        temperature: T, above 0.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return -self.temperature * log_sum_exp(logits / self.temperature)
