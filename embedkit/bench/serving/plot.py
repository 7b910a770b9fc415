"""The picture of a result: latency against throughput, and efficiency."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.bench.serving.result import Figures
from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_suffix", "plot"]

_SUFFIXES = (".png", ".svg", ".pdf")


def check_suffix(path: Path) -> None:
    """Refuse a file that no plot can be written to, before anything is measured.

    Raises:
        InvalidInput: If it does not end with ``.png``, ``.svg`` or ``.pdf``.
    """
    if path.suffix not in _SUFFIXES:
        raise InvalidInput(f"expected a plot of {', '.join(_SUFFIXES)}, got {path}")


def plot(models: Sequence[Figures], path: Path) -> None:
    """Draw the results of some models.

    Args:
        models: As in the JSON file.
        path: Ends with ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        InvalidInput: If it ends otherwise.
    """
    check_suffix(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(models)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(models), 2, squeeze=False)
    for (left, right), model in zip(axes, models, strict=True):
        _draw_latency(left, model)
        _draw_efficiency(right, model)
    figure.savefig(path)


def _draw_latency(axes: "Axes", model: Figures) -> None:
    """Percentiles of every mode and loop against images per second."""
    groups: dict[str, list[Figures]] = {}
    for case in model["cases"]:
        groups.setdefault(f"{case['mode']}, {case['loop']} loop", []).append(case)
    for number, (name, cases) in enumerate(groups.items()):
        rates = [case["images_per_s"]["median"] for case in cases]
        for quantile, line in (("p50", "o-"), ("p99", "^--")):
            values = [case["latency_ms"].get(quantile) for case in cases]
            label = f"{name}, {quantile}"
            axes.plot(rates, values, line, color=f"C{number}", label=label, markersize=4)
    axes.set(title=model["model"], xlabel="images per second", ylabel="ms", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="x-small")


def _draw_efficiency(axes: "Axes", model: Figures) -> None:
    """Median efficiency of every case, with its range over the rounds."""
    cases = [c for c in model["cases"] if "efficiency" in c][::-1]
    middles = [case["efficiency"]["median"] for case in cases]
    below = [case["efficiency"]["median"] - case["efficiency"]["min"] for case in cases]
    above = [case["efficiency"]["max"] - case["efficiency"]["median"] for case in cases]
    axes.barh([case["name"] for case in cases], middles, xerr=(below, above), capsize=3)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xlabel="served / bare images per second", title="median and range over rounds")
    axes.grid(alpha=0.3, axis="x")
