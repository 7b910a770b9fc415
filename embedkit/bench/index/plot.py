"""The picture of a result: recall against queries per second, served and bare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.bench.index.figures import Figures
from embedkit.bench.serving.plot import check_suffix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]


def plot(indexes: Sequence[Figures], path: Path) -> None:
    """Draw a row per set of vectors and a column per load.

    Args:
        indexes: As in the JSON file, at least one.
        path: Ends with ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        InvalidInput: If it ends otherwise.
    """
    check_suffix(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys((i["data"], i["n"], i["dim"]) for i in indexes))
    loads = sorted({(p["batch"], p["in_flight"]) for i in indexes for p in i["points"]})
    figure = Figure(figsize=(5.5 * len(loads), 3.8 * len(sets)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sets), len(loads), squeeze=False)
    for row, (data, n, dim) in zip(axes, sets, strict=True):
        chosen = [i for i in indexes if (i["data"], i["n"], i["dim"]) == (data, n, dim)]
        for one, (batch, in_flight) in zip(row, loads, strict=True):
            _draw(one, chosen, (batch, in_flight))
            one.set(title=f"{data}, {n:,} x {dim}, {in_flight} calls of {batch}")
    figure.savefig(path)


def _draw(axes: "Axes", indexes: Sequence[Figures], load: tuple[int, int]) -> None:
    for number, index in enumerate(indexes):
        points = [p for p in index["points"] if (p["batch"], p["in_flight"]) == load]
        for prefix, line, who in (("", "o-", ""), ("bare_", "x:", ", bare FAISS")):
            axes.plot(
                [point[f"{prefix}recall"] for point in points],
                [point[f"{prefix}queries_per_s"]["median"] for point in points],
                line,
                color=f"C{number}",
                label=index["kind"] + who,
                markersize=4,
            )
    axes.set(xlabel=f"recall@{indexes[0]['k']}", ylabel="queries per second", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="x-small")
