"""The training report: one page that needs nothing beside itself."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from embedkit.train.monitor.charts import COLOURS, line_chart, point_map, thinned
from embedkit.train.monitor.probe import Maps, common_plane
from embedkit.train.recipe import Recipe
from embedkit.train.run.checkpoint import write_file
from embedkit.train.run.metrics import Line, read_metrics

__all__ = ["write_page"]

_MAPS = 6
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#1d2329}
body{max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}
figure{display:inline-block;margin:0 1em 1em 0}
svg{display:block;width:460px;background:#fafbfc;border:1px solid #dde1e5}
svg.map{width:230px}
polyline{fill:none;stroke-width:1.5}.axis{fill:none;stroke:#9aa3ab}text{font-size:10px;fill:#4b555e}
figcaption{font-size:12px}figcaption span{margin-left:.6em;font-weight:600}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;font-weight:400}
th{color:#5f6b73}.warning{color:#a33}pre{background:#f4f6f8;padding:.8em;overflow:auto}
"""


def write_page(
    folder: Path, recipe: Recipe, class_names: Sequence[str], warnings: Sequence[str]
) -> None:
    """Write ``report.html`` from what the run folder holds; nothing if there is no line yet.

    Args:
        folder: With ``metrics.jsonl`` and, where there was a probe, ``maps.npz``.
        recipe: What is run.
        class_names: Of the data; empty without labels.
        warnings: So far.

    Raises:
        BundleDamaged: If a line of the metrics, or ``maps.npz``, is not what was written.
    """
    lines = read_metrics(folder / "metrics.jsonl")
    if not lines:
        return
    title = f"{recipe.encoder.name} by {recipe.objective.name} on {recipe.data.source}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _state(lines[-1]),
        *(f'<p class="warning">warning: {escape(warning)}</p>' for warning in warnings),
        "<h2>Loss</h2>",
        *_losses(lines),
        "<h2>Embeddings</h2>",
        *_measures(lines),
        *_maps(Maps.read(folder), class_names),
        "<h2>Speed and steps</h2>",
        *_speeds(lines),
        f"<h2>Recipe</h2><pre>{escape(recipe.to_toml())}</pre>",
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )
    write_file(folder / "report.html", page.encode())


def _state(last: Line) -> str:
    rows = {
        "step": f"{last['step']} of {last['steps']} (epoch {last['epoch']})",
        "loss": f"{last['loss']:.4f}",
        "effective rank": f"{last['effective_rank']:.1f} of {last['dim']}",
        "training time": f"{last['seconds']:.0f} s",
    }
    if last["step"] < last["steps"]:
        rows["time left"] = f"{last['eta_s']:.0f} s"
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _chart(title: str, lines: list[Line], names: dict[str, str]) -> str:
    """A chart of some numbers of every line, at most a few hundred of them."""
    # A measure that is taken seldom keeps every value that was taken.
    lines = [line for line in lines if any(line.get(key) is not None for key in names)]
    shown = [lines[i] for i in thinned(lines)]
    values = {name: [line.get(key) for line in shown] for key, name in names.items()}
    return line_chart(title, [line["step"] for line in shown], values)


def _losses(lines: list[Line]) -> list[str]:
    charts = [_chart("loss", lines, {"loss": "total"})]
    flat = [{"step": line["step"], **line["parts"]} for line in lines]
    names = list(dict.fromkeys(name for line in lines for name in line["parts"]))
    if len(names) > 1:
        charts.append(_chart("parts of the loss", flat, {name: name for name in names}))
    return charts


def _measures(lines: list[Line]) -> list[str]:
    """Collapse measures: what a falling loss may hide."""
    dim = lines[-1]["dim"]
    flat = [{**line, "share": line["embedding_std"] * dim**0.5} for line in lines]
    return [
        _chart("online kNN, fraction right", flat, {"knn": "k = 20"}),
        _chart(f"effective rank, of {dim}", flat, {"effective_rank": ""}),
        _chart("standard deviation, share of an even spread", flat, {"share": ""}),
        _chart("distance between views", flat, {"alignment": "alignment"}),
        _chart("uniformity", flat, {"uniformity": ""}),
    ]


def _speeds(lines: list[Line]) -> list[str]:
    return [
        _chart("images per second", lines, {"images_per_s": ""}),
        _chart("learning rate", lines, {"lr": ""}),
        _chart("norm of the gradient", lines, {"grad_norm": ""}),
    ]


def _maps(maps: Maps | None, class_names: Sequence[str]) -> list[str]:
    """Some of the looks side by side, on one plane and one scale."""
    if maps is None:
        return []
    chosen = thinned(maps.steps, _MAPS)
    plane = common_plane(maps.embeddings[chosen])
    reach = 1.05 * float(np.abs(plane).max())
    labels = None if maps.labels is None else maps.labels.tolist()
    legend = "".join(
        f'<span style="color:{COLOURS[i % len(COLOURS)]}">{escape(name)}</span> '
        for i, name in enumerate(class_names if labels is not None else ())
    )
    return [
        f"<h2>The same {plane.shape[1]} images over time</h2>",
        "<p>Embeddings as they are, on the two axes along which all of these looks together "
        f"vary most. {legend}</p>",
        *(
            point_map(f"step {maps.steps[index]}", plane[i], labels, reach)
            for i, index in enumerate(chosen)
        ),
    ]
