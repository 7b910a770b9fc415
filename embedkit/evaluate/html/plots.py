"""The plots of a report as inline SVG, drawn from the figure data in ``report.json``."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from embedkit.evaluate.html.axes import Frame, path, span

__all__ = ["Drawing", "Grid", "Table", "draw_figures"]

Figure = Mapping[str, object]

COLOURS = 10
_BINS = 30
_LEGEND_ENTRIES = 12
_CURVES_PER_PLOT = 6
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Drawing:
    """One plot.

    Attributes:
        title: Written above it.
        svg: The drawing.
        legend: Class of the colour, and name, of each series.
        more: Series that the legend has no room for.
    """

    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()
    more: int = 0


@dataclass(frozen=True)
class Grid:
    """Rows of pictures.

    Attributes:
        title: Written above them.
        rows: Label, and a PNG in base64 per image.
    """

    title: str
    rows: tuple[tuple[str, tuple[str, ...]], ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Table:
    """Words and numbers in rows.

    Attributes:
        title: Written above them.
        columns: Headings.
        cells: One tuple per row, as long as the headings.
    """

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def draw_figures(figures: Mapping[str, Figure]) -> list[Drawing | Grid | Table]:
    """Draw all figures of one task; ROC curves share a plot, up to six of them.

    Figures of a kind that is not known are left out.
    """
    curves = [figure for figure in figures.values() if figure.get("kind") == "roc"]
    drawn: list[Drawing | Grid | Table] = [
        _roc(curves[start : start + _CURVES_PER_PLOT])
        for start in range(0, len(curves), _CURVES_PER_PLOT)
    ]
    draw: dict[object, Callable[[str, Figure], Drawing | Grid | Table]] = {
        "histogram": _histogram,
        "curve": _curve,
        "scatter2d": _scatter,
        "image_grid": _image_grid,
        "reliability": _reliability,
        "table": _table,
    }
    for name, figure in figures.items():
        kind = figure.get("kind")
        if kind in draw:
            drawn.append(draw[kind](str(figure.get("title", name)), figure))
    return drawn


def _roc(figures: Sequence[Figure]) -> Drawing:
    frame = Frame.around((0, 1), (0, 1))
    lines = [path(frame.points([0, 1], [0, 1]), "chance")]
    for index, figure in enumerate(figures):
        points = frame.points(_floats(figure["fpr"]), _floats(figure["tpr"]))
        lines.append(path(points, f"line c{index}"))
    svg = frame.draw(
        lines, "share of known images rejected", "share of novel images rejected", "ROC curves"
    )
    names = [str(figure["label"]) for figure in figures]
    return Drawing("ROC: novel images found against known images lost", svg, _legend(names))


def _histogram(title: str, figure: Figure) -> Drawing:
    """Shares of each series per bin, so that sets of different size compare."""
    series = {
        name: [value for value in _floats(values) if math.isfinite(value)]
        for name, values in _mapping(figure["series"]).items()
    }
    low, high = span(value for values in series.values() for value in values)
    shares = {name: _shares(values, low, high) for name, values in series.items()}
    top = max((max(share) for share in shares.values()), default=1.0) or 1.0
    frame = Frame.around((low, high), (0, top * 1.05))
    edges = [low + (high - low) * i / _BINS for i in range(_BINS + 1)]
    content = []
    for index, share in enumerate(shares.values()):
        x = [edge for edge in edges for _ in range(2)]
        y = [0.0, *(value for value in share for _ in range(2)), 0.0]
        points = frame.points(x, y)
        content += [path(points, f"area c{index}", closed=True), path(points, f"line c{index}")]
    svg = frame.draw(content, "novelty score", "share of images", title)
    return Drawing(title, svg, _legend(list(series)))


def _curve(title: str, figure: Figure) -> Drawing:
    """Lines with their intervals; the horizontal axis is logarithmic over three decades."""
    x = _floats(figure["x"])
    series = {name: _mapping(values) for name, values in _mapping(figure["series"]).items()}
    everything = [
        v for s in series.values() for key in ("y", "lo", "hi") for v in _floats(s[key])
    ]
    log = bool(x) and min(x) > 0 and max(x) / min(x) >= 50
    few = len(x) <= 8
    frame = Frame.around(span(x), _vertical(everything), log_x=log, ticks_x=x if few else ())
    content = []
    for index, values in enumerate(series.values()):
        low = frame.points(x, _floats(values["lo"]))
        high = frame.points(x, _floats(values["hi"]))
        points = frame.points(x, _floats(values["y"]))
        content.append(path([*low, *reversed(high)], f"band c{index}", closed=True))
        content.append(path(points, f"line c{index}"))
        if few:
            content += [_dot(point, f"dot c{index}") for point in points]
    svg = frame.draw(content, str(figure["xlabel"]), str(figure["ylabel"]), title)
    return Drawing(title, svg, _legend(list(series)))


def _scatter(title: str, figure: Figure) -> Drawing:
    x, y = _floats(figure["x"]), _floats(figure["y"])
    labels = [str(label) for label in _list(figure["labels"])]
    frame = Frame.around(span(x, margin=0.03), span(y, margin=0.03))
    names = sorted(set(labels))
    content = []
    for index, name in enumerate(names):
        chosen = [i for i, label in enumerate(labels) if label == name]
        points = frame.points([x[i] for i in chosen], [y[i] for i in chosen])
        dots = Markup("").join(_dot(point, "") for point in points)
        content.append(
            Markup('<g class="point {}"><title>{}</title>{}</g>').format(
                _colour(index), name, dots
            )
        )
    svg = frame.draw(content, "first component", "second component", title)
    shown = _legend(names)[:_LEGEND_ENTRIES]
    return Drawing(title, svg, shown, len(names) - len(shown))


def _reliability(title: str, figure: Figure) -> Drawing:
    """Accuracy over confidence; a dot's size grows with the share of the images in its bin.

    The line goes through bins of a fiftieth of the images or more: others are mostly chance.
    """
    frame = Frame.around((0, 1), (0, 1))
    content = [path(frame.points([0, 1], [0, 1]), "chance")]
    series = {name: _mapping(values) for name, values in _mapping(figure["series"]).items()}
    for index, values in enumerate(series.values()):
        points = frame.points(_floats(values["confidence"]), _floats(values["accuracy"]))
        counts = _floats(values["count"])
        total = max(sum(counts), 1.0)
        pairs = list(zip(points, counts, strict=False))
        solid = [point for point, count in pairs if count >= total / 50]
        content.append(path(solid, f"line c{index}"))
        content += [
            _dot(point, f"dot c{index}", 2 + 8 * math.sqrt(count / total))
            for point, count in pairs
        ]
    svg = frame.draw(content, "confidence", "accuracy", title)
    return Drawing(title, svg, _legend(list(series)))


def _image_grid(title: str, figure: Figure) -> Grid:
    rows = []
    for row in _list(figure["rows"]):
        values = _mapping(row)
        images = tuple(
            image
            for image in _list(values["images"])
            if isinstance(image, str) and _BASE64.fullmatch(image)
        )
        rows.append((str(values["label"]), images))
    return Grid(title, tuple(rows))


def _table(title: str, figure: Figure) -> Table:
    columns = tuple(map(str, _list(figure["columns"])))
    rows = (tuple(map(str, _list(row))) for row in _list(figure["rows"]))
    return Table(title, columns, tuple(row for row in rows if len(row) == len(columns)))


def _vertical(values: list[float]) -> tuple[float, float]:
    """Shares are shown from 0 to 1; anything else over its own range, from 0 if near."""
    low, high = span(values)
    if low >= 0 and high <= 1 and high > 0.2:
        return 0.0, 1.0
    return (0.0 if 0 <= low < high / 2 else low), high * 1.05 if high > 0 else high


def _shares(values: list[float], low: float, high: float) -> list[float]:
    counts = [0] * _BINS
    for value in values:
        counts[min(int((value - low) / (high - low) * _BINS), _BINS - 1)] += 1
    return [count / max(len(values), 1) for count in counts]


def _dot(point: tuple[float, float], css: str, radius: float = 3.0) -> Markup:
    kind = Markup(' class="{}"').format(css) if css else Markup("")
    return Markup('<circle{} cx="{}" cy="{}" r="{}"/>').format(
        kind, f"{point[0]:.1f}", f"{point[1]:.1f}", f"{radius:.3g}"
    )


def _legend(names: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((_colour(index), name) for index, name in enumerate(names))


def _colour(index: int) -> str:
    return f"c{index % COLOURS}"


def _floats(values: object) -> list[float]:
    """Numbers of a JSON list; anything else becomes NaN, which is not drawn."""
    return [
        float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan
        for v in _list(values)
    ]


def _list(values: object) -> Sequence[object]:
    return values if isinstance(values, list | tuple) else ()


def _mapping(values: object) -> Mapping[str, object]:
    return values if isinstance(values, dict) else {}
