"""Is a number better than what costs nothing to get? The traffic light of the tables."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NOT_TO_BEAT", "Reading", "Verdict", "judge"]

NOT_TO_BEAT = ("random_noise",)
"""Baselines that say how weak an attack may be; a model is not expected to be above them."""


@dataclass(frozen=True)
class Reading:
    """A metric as it is read from ``report.json``.

    Attributes:
        value: The number, or None if it is not finite.
        low: Lower end of its interval; the value itself without one.
        high: Upper end.
        has_interval: Whether the report gives an interval.
        n: Items behind it.
        unit: Its unit, or empty.
        higher_is_better: Its direction.
    """

    value: float | None
    low: float
    high: float
    has_interval: bool
    n: int
    unit: str
    higher_is_better: bool

    @classmethod
    def of(cls, metric: Mapping[str, object]) -> "Reading":
        """Read one metric; anything that is not a number counts as missing."""
        value, ci, n = _number(metric.get("value")), metric.get("ci"), metric.get("n")
        ends = [_number(end) for end in ci] if isinstance(ci, list | tuple) else []
        known = len(ends) == 2 and None not in ends
        low, high = (ends[0], ends[1]) if known else (value, value)
        return cls(
            value,
            low or 0.0,
            high or 0.0,
            known,
            n if isinstance(n, int) else 0,
            str(metric.get("unit", "")),
            metric.get("higher_is_better") is not False,
        )

    def beats(self, other: "Reading") -> bool:
        """Whether the value is strictly the better one."""
        if self.value is None or other.value is None:
            return False
        above, below = self.value > other.value, self.value < other.value
        return above if self.higher_is_better else below

    def is_apart_from(self, other: "Reading") -> bool:
        """Whether both have intervals and these do not touch, in the better direction."""
        if not (self.has_interval and other.has_interval):
            return False
        apart_above, apart_below = self.low > other.high, self.high < other.low
        return apart_above if self.higher_is_better else apart_below


@dataclass(frozen=True)
class Verdict:
    """The light and the reason.

    Attributes:
        light: ``good``, ``mixed``, ``bad`` or ``none``.
        reason: A few words.
    """

    light: str
    reason: str


def judge(metric: Reading, baselines: Mapping[str, Reading]) -> Verdict:
    """Compare a metric with the same metric of each baseline.

    Returns:
        ``good`` if it beats every baseline with intervals apart, ``mixed`` if it beats every
        baseline but an interval overlaps or is missing, ``bad`` if it does not beat one of
        them, ``none`` without a value or a baseline.
    """
    rivals = {
        name: other
        for name, other in baselines.items()
        if name not in NOT_TO_BEAT and other.value is not None
    }
    if not rivals or metric.value is None:
        return Verdict("none", "nothing to compare with")
    unbeaten = [name for name, other in rivals.items() if not metric.beats(other)]
    if unbeaten:
        return Verdict("bad", f"not better than {_listed(unbeaten)}")
    close = [name for name, other in rivals.items() if not metric.is_apart_from(other)]
    lacking = [name for name in close if not rivals[name].has_interval]
    if close and not metric.has_interval:
        return Verdict("mixed", "better, but the number has no interval")
    if lacking:
        return Verdict("mixed", f"better, but there is no interval for {_listed(lacking)}")
    if close:
        return Verdict("mixed", f"better, but intervals overlap with {_listed(close)}")
    return Verdict("good", "better than every baseline, intervals apart")


def _listed(names: list[str]) -> str:
    return " and ".join(name.replace("_", " ") for name in names)


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]
