"""A number as a drawing one line high: its interval, its value, its baselines."""

from collections.abc import Sequence

from markupsafe import Markup

from embedkit.evaluate.html.verdict import Reading

__all__ = ["draw_strip"]

WIDTH, HEIGHT, MARGIN = 120, 16, 4


def draw_strip(reading: Reading, baselines: Sequence[Reading]) -> Markup:
    """Return a line from 0 to 1 with the interval, the value (dot) and the baselines (ticks).

    Only shares are drawn: nothing else has ends that all share.
    """
    if reading.unit != "fraction" or reading.value is None:
        return Markup("")
    middle = HEIGHT / 2
    ticks = Markup("").join(
        Markup('<line class="rival" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            _place(other.value), middle - 5, middle + 5
        )
        for other in baselines
        if other.value is not None
    )
    return Markup(
        '<svg class="strip" viewBox="0 0 {w} {h}" aria-hidden="true">'
        '<line class="scale" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>{ticks}'
        '<line class="interval" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
        '<circle class="value" cx="{value}" cy="{y}" r="3.5"/></svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        left=MARGIN,
        right=WIDTH - MARGIN,
        y=middle,
        ticks=ticks,
        low=_place(reading.low),
        high=_place(reading.high),
        value=_place(reading.value),
    )


def _place(share: float) -> str:
    return f"{MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - 2 * MARGIN):.1f}"
