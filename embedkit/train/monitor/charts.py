"""Charts as inline SVG: lines over steps, and points of a map."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

__all__ = ["COLOURS", "line_chart", "point_map", "thinned"]

COLOURS = (
    *("#1f77b4", "#d95f02", "#2ca02c", "#c02942", "#7b5ea7"),
    *("#8c6d31", "#d45dbb", "#5f6b73", "#9a9a00", "#17a2b8"),
)
"""Of lines and classes, one after the other, then again from the first."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 220, 64, 24, 8
_SIDE = 230
_POINTS = 400


def thinned(values: Sequence[object], limit: int = _POINTS) -> list[int]:
    """At most ``limit`` evenly spaced positions of a series, its first and last among them."""
    if len(values) <= limit:
        return list(range(len(values)))
    return [int(i) for i in np.linspace(0, len(values) - 1, limit).round()]


def line_chart(
    title: str, steps: Sequence[int], lines: Mapping[str, Sequence[float | None]]
) -> str:
    """Return one chart of one or more lines over steps.

    Args:
        title: Above it.
        steps: Of every value.
        lines: Values by name; None and what is not finite leaves a gap.
    """
    known = [v for line in lines.values() for v in line if v is not None and math.isfinite(v)]
    if not known:
        return ""
    low, high = min(known), max(known)
    high = high if high > low else low + (abs(low) or 1.0)
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def place(step: int, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT) * (step - first) / (last - first)
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    drawn, legend = [], []
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        for stretch in _stretches(steps, line):
            points = " ".join(place(step, value) for step, value in stretch)
            drawn.append(f'<polyline points="{points}" stroke="{colour}"/>')
            drawn += [
                f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2" fill="{colour}"/>'
                for p in points.split(" ")
                if len(stretch) == 1
            ]
        legend.append(f'<span style="color:{colour}">{escape(name)}</span>')
    return (
        f"<figure><figcaption>{escape(title)} {' '.join(legend)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{_axes(low, high, first, last)}{''.join(drawn)}</svg></figure>"
    )


def point_map(
    title: str, points: npt.NDArray[np.float64], labels: Sequence[int] | None, reach: float
) -> str:
    """Return one map.

    Args:
        title: Above it.
        points: (m, 2).
        labels: Class of each, or None.
        reach: Coordinate at the edge; the same for maps that are compared.
    """
    scale = _SIDE / 2 / (reach or 1.0)
    dots = [
        f'<circle cx="{_SIDE / 2 + scale * x:.1f}" cy="{_SIDE / 2 - scale * y:.1f}" r="1.8" '
        f'fill="{COLOURS[(labels[i] if labels is not None else 0) % len(COLOURS)]}"/>'
        for i, (x, y) in enumerate(points.tolist())
    ]
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg class="map" viewBox="0 0 {_SIDE} {_SIDE}" role="img" '
        f'aria-label="{escape(title)}">{"".join(dots)}</svg></figure>'
    )


def _stretches(
    steps: Sequence[int], line: Sequence[float | None]
) -> list[list[tuple[int, float]]]:
    """A line cut where values are missing because they are not numbers.

    Values that were not taken (None) are passed over: a measure taken seldom is still a line.
    """
    found: list[list[tuple[int, float]]] = [[]]
    for step, value in zip(steps, line, strict=True):
        if value is None:
            continue
        if math.isfinite(value):
            found[-1].append((step, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _axes(low: float, high: float, first: int, last: int) -> str:
    bottom = _HEIGHT - _BOTTOM
    return (
        f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH}"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 9}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{_LEFT - 4}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">step {first}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">{last}</text>'
    )
