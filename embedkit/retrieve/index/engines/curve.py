"""How much of the truth an index finds at which effort, as measured when it was built."""

from dataclasses import dataclass

__all__ = ["Curve", "Point"]


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        k: Neighbours asked for.
        effort: ``nprobe`` or ``ef``.
        recall: Share of the true neighbours found, lowered by one standard error.
    """

    k: int
    effort: int
    recall: float


@dataclass(frozen=True)
class Curve:
    """The measurements of one index.

    Attributes:
        width: Candidates per neighbour that are compared exactly, at least 1.
        points: Ascending by k, then by effort.
    """

    width: float = 1.0
    points: tuple[Point, ...] = ()

    def effort(self, k: int, target: float) -> int | None:
        """The least effort that reached a recall, or None if none did.

        The measurement for the next larger ``k`` counts; beyond the largest, effort grows in
        proportion.
        """
        measured = sorted({point.k for point in self.points})
        if not measured:
            return None
        nearest = next((m for m in measured if m >= k), measured[-1])
        for point in self.points:
            if point.k == nearest and point.recall >= target:
                return max(1, round(point.effort * max(1.0, k / nearest)))
        return None
