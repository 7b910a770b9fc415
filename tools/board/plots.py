"""The pictures of the leaderboard, as SVG that is the same for the same numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.board.summary import COLUMNS, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_scores", "draw_trades"]

COLOURS = {"images": "C0", "labels": "C1", "models": "C2", "nothing": "0.4"}
_LEGEND = {
    "images": "from images alone",
    "labels": "from labels",
    "models": "from finished models",
    "nothing": "untrained",
}


def draw_scores(rows: Sequence[Row], path: Path, columns: Sequence[str]) -> None:
    """A dot per run and measure, one line per row, best first by the first measure."""
    ordered = sorted(rows, key=lambda row: row.mean(columns[0]) or 0.0)
    figure = _figure(4.2 * len(columns) + 1, 0.21 * len(ordered) + 1.2)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for height, row in enumerate(ordered):
            values = row.values(column)
            colour = COLOURS[row.entry.kind]
            axes.plot(
                values, [height] * len(values), "o", color=colour, markersize=3, alpha=0.6
            )
            axes.plot(row.mean(column), height, "|", color=colour, markersize=9)
        axes.set(title=COLUMNS[column].title)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(ordered)), [row.entry.name for row in ordered], fontsize=7)
    panels[0].set_ylim(-0.7, len(ordered) - 0.3)
    _legend(panels[0])
    _save(figure, path)


def draw_trades(rows: Sequence[Row], path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """One measure over another, a dot per row."""
    figure = _figure(4.6 * len(pairs), 4.2)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for axes, (across, up) in zip(panels, pairs, strict=True):
        for row in rows:
            x, y = row.mean(across), row.mean(up)
            if x is None or y is None:
                continue
            axes.plot(x, y, "o", color=COLOURS[row.entry.kind], markersize=4)
            axes.annotate(
                row.entry.name, (x, y), fontsize=4.5, xytext=(2, 2), textcoords="offset points"
            )
        axes.set(xlabel=COLUMNS[across].title, ylabel=COLUMNS[up].title)
        axes.grid(alpha=0.3)
    _legend(panels[0])
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(axes: "Axes") -> None:
    for kind, text in _LEGEND.items():
        axes.plot([], [], "o", color=COLOURS[kind], markersize=4, label=text)
    axes.legend(fontsize=6, loc="lower right")


def _save(figure: "Figure", path: Path) -> None:
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "leaderboard", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
