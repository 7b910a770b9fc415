"""Axes of a small SVG plot: scales, round ticks, grid and labels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Frame", "Scale", "number", "path", "span"]

WIDTH, HEIGHT = 400, 264
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 10, 46
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from data to the drawing.

    Attributes:
        low: Data value at ``start``.
        high: Data value at ``end``, above ``low``.
        start: Pixel of ``low``.
        end: Pixel of ``high``.
        log: Whether the map is logarithmic; ``low`` is above 0 then.
        at: Where the ticks are; chosen if empty.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    at: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values beyond the ends are drawn at the ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """Return round values within the scale, ascending."""
        if self.at:
            return self.at
        if self.log:
            decades = range(math.ceil(math.log10(self.low)), int(math.log10(self.high)) + 1)
            return tuple(10.0**decade for decade in decades)
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(index * step for index in range(first, last + 1))


@dataclass(frozen=True)
class Frame:
    """The area inside the axes.

    Attributes:
        x: Scale of the horizontal axis.
        y: Scale of the vertical axis.
    """

    x: Scale
    y: Scale

    @classmethod
    def around(
        cls,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        log_x: bool = False,
        ticks_x: Sequence[float] = (),
    ) -> "Frame":
        """Return the frame of these data ranges at the size of every plot."""
        across = Scale(*x, LEFT, WIDTH - RIGHT, log_x, tuple(ticks_x))
        return cls(across, Scale(*y, HEIGHT - BOTTOM, TOP))

    def points(self, x: Sequence[float], y: Sequence[float]) -> list[Point]:
        """Return the pixels of data points; a point that is not finite is left out."""
        pairs = zip(x, y, strict=False)
        return [
            (self.x(a), self.y(b)) for a, b in pairs if math.isfinite(a) and math.isfinite(b)
        ]

    def draw(self, content: Iterable[Markup], xlabel: str, ylabel: str, title: str) -> Markup:
        """Return the whole drawing: grid, content and labels."""
        middle_x = (LEFT + WIDTH - RIGHT) / 2
        middle_y = (TOP + HEIGHT - BOTTOM) / 2
        labels = Markup(
            '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
            '<text class="axis" transform="translate(13 {}) rotate(-90)" '
            'text-anchor="middle">{}</text>'
        ).format(f"{middle_x:.0f}", HEIGHT - 8, xlabel, f"{middle_y:.0f}", ylabel)
        return Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>'
        ).format(WIDTH, HEIGHT, title, self._grid(), Markup("").join(content), labels)

    def _grid(self) -> Markup:
        lines = []
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value in self.x.ticks():
            place = f"{self.x(value):.1f}"
            lines.append(
                Markup(
                    '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
                    '<text class="tick" x="{0}" y="{3}" text-anchor="middle">{4}</text>'
                ).format(place, TOP, bottom, bottom + 16, number(value))
            )
        for value in self.y.ticks():
            place = f"{self.y(value):.1f}"
            lines.append(
                Markup(
                    '<line class="grid" x1="{1}" x2="{2}" y1="{0}" y2="{0}"/>'
                    '<text class="tick" x="{3}" y="{0}" dy=".32em" text-anchor="end">{4}</text>'
                ).format(place, LEFT, right, LEFT - 6, number(value))
            )
        return Markup("").join(lines)


def path(points: Sequence[Point], css: str, *, closed: bool = False) -> Markup:
    """Return a line through pixels, or the area they enclose."""
    if not points:
        return Markup("")
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    tag = "polygon" if closed else "polyline"
    return Markup('<{} class="{}" points="{}"/>').format(Markup(tag), escape(css), steps)


def span(values: Iterable[float], *, margin: float = 0.0) -> tuple[float, float]:
    """Return the range of the finite values, never empty, widened by a share on both sides."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high <= low:
        room = abs(low) * 0.1 or 0.5
        return low - room, high + room
    room = (high - low) * margin
    return low - room, high + room


def number(value: float) -> str:
    """Return a tick's label, as short as it can be."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``step``."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
