"""Metric: one number of a report, with how sure it is."""

import math
from dataclasses import dataclass

__all__ = ["Metric", "Metrics"]


@dataclass(frozen=True)
class Metric:
    """One number of a report.

    Attributes:
        value: The point estimate.
        ci: 95 % interval (low, high), or None where there is no sampling error to state.
        n: Items that the value was computed from.
        unit: ``fraction``, ``count``, ``cosine``, ... ; empty for a bare number.
        higher_is_better: Whether a larger value is the better one.
        ci_method: ``wilson``, ``clopper_pearson``, ``delong``, ``bootstrap``, or empty.
    """

    value: float
    ci: tuple[float, float] | None
    n: int
    unit: str = "fraction"
    higher_is_better: bool = True
    ci_method: str = ""

    def to_dict(self) -> dict[str, object]:
        """The form in ``report.json``; a value that is not finite becomes null."""
        return {
            "value": _finite(self.value),
            "ci": None if self.ci is None else [_finite(v) for v in self.ci],
            "n": int(self.n),
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "ci_method": self.ci_method,
        }


Metrics = dict[str, Metric]
"""Metrics by their path without the task's name."""


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
