"""docs/leaderboard.md: the table, what it says, and how each number came about."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tools.board.plots import draw_scores, draw_trades
from tools.board.record import Record, read_all
from tools.board.summary import COLUMNS, Row, pooled_sd, rows

__all__ = ["MARGIN", "render", "write_page"]

MARGIN = 0.04
"""Points of kNN by which an objective without labels should beat its untrained network."""

_GROUPS = {
    "images": "From images alone",
    "models": "From finished models",
    "labels": "From labels",
    "nothing": "References",
}

_HEAD = """# Leaderboard

Every objective under the same conditions: the first 10,000 images of Fashion-MNIST, 8 epochs in
batches of 256 (312 steps), a ResNet of 24-48-96 channels and 0.17 M parameters (its first layer
halves the image), one augmentation, one optimiser, bf16 where the processor has it and float32
elsewhere. Each encoder was exported, served and measured through gRPC.

```
OMP_NUM_THREADS=1 python -m tools.leaderboard --data FOLDER
```

goes on where it stopped; `--objectives`, `--seeds` and `--limit-s` choose a part, `--render`
writes this page from the records in [results/leaderboard](results/leaderboard). The recipes are
in [recipes/fashion_mnist](../recipes/fashion_mnist).

These are short runs of a small network on grey images of 28 pixels. They tell what an objective
does with 312 steps, and little of which is best after 100,000: methods that learn from a slow
teacher or from hidden patches start slowly. Numbers are means over the seeds in the column *n*,
with the standard deviation over them.

Equal conditions are not equal tuning. What the short recipes change was looked for on other
training images with one seed per setting, in 8 settings for `dino`, 7 for `whitening`, 6 for
`instance_discrimination`, 4 for `byol` and for `dcl`, and none or few for the others; the rate
of learning, which all share, with `simclr`.
"""


def write_page(results: Path, page: Path) -> None:
    """Write the page and its pictures from the records there are."""
    table = rows(read_all(results))
    known = [row for row in table.values() if row.runs]
    pictures = results.parent
    if known:
        draw_scores(known, pictures / "leaderboard.svg", ("knn", "linear", "few_shot"))
        pairs = [("knn", "kmnist"), ("knn", "corruption"), ("seconds", "knn")]
        draw_trades(known, pictures / "leaderboard_trades.svg", pairs)
    page.write_text(render(table), encoding="utf-8")


def render(table: Mapping[str, Row]) -> str:
    """The whole page."""
    parts = [_HEAD, "![Scores by row](results/leaderboard.svg)\n"]
    for kind, title in _GROUPS.items():
        chosen = [row for row in table.values() if row.entry.kind == kind and row.runs]
        if chosen:
            chosen.sort(key=lambda row: -(row.mean("knn") or 0.0))
            parts.append(f"## {title}\n\n{_table(chosen)}")
    parts += ["![Trades](results/leaderboard_trades.svg)\n", _verdicts(table), _measures(table)]
    parts.append(_missing(table))
    return "\n".join(part for part in parts if part)


def _table(chosen: Sequence[Row]) -> str:
    columns = [name for name in COLUMNS if any(row.values(name) for row in chosen)]
    heads = ["", *(COLUMNS[name].title for name in columns), "n"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in chosen:
        cells = [_cell(row, name) for name in columns]
        lines.append(_line([f"`{row.entry.name}`", *cells, str(len(row.runs))]))
    notes = [f"- `{row.entry.name}`: {row.entry.note}." for row in chosen if row.entry.note]
    return "\n".join([*lines, "", *notes, ""] if notes else [*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row, column: str) -> str:
    mean, sd = row.mean(column), row.sd(column)
    if mean is None:
        return ""
    form = COLUMNS[column].form
    return form.format(mean) if sd is None else f"{form.format(mean)} ± {form.format(sd)}"


def _verdicts(table: Mapping[str, Row]) -> str:
    """What the numbers say of the two aims."""
    lines = ["## What it says", "", *_best(table), ""]
    short, enough = [], 0
    for row in table.values():
        untrained = table["random_vit" if "vit" in str(row.entry.changes) else "random"]
        gains = row.over(untrained, "knn")
        if row.entry.kind not in ("images", "models") or not gains:
            continue
        gain = float(np.mean(gains))
        if gain >= MARGIN:
            enough += 1
            continue
        why = row.entry.weak or "no reason is known yet"
        short.append(f"- `{row.entry.name}`: {100 * gain:+.1f} points. {why}")
    lines.append(
        f"{enough} of {enough + len(short)} rows without labels beat the kNN of the untrained "
        f"network of the same seed by at least {100 * MARGIN:.0f} points"
        + ("." if not short else "; these do not:")
    )
    return "\n".join([*lines, "", *short, ""] if short else [*lines, ""])


def _best(table: Mapping[str, Row]) -> list[str]:
    pixels = table["raw_pixels"]
    found = [r for r in table.values() if r.entry.kind == "images" and r.runs]
    if not found or not pixels.runs:
        return []
    lines = []
    for column in ("knn", "linear", "sgd"):
        best = max(found, key=lambda row: row.mean(column) or 0.0)
        lines.append(
            f"- {COLUMNS[column].title}: the best from images alone is `{best.entry.name}` "
            f"with {_cell(best, column)} (n = {len(best.runs)}); raw pixels have "
            f"{_cell(pixels, column)}."
        )
    return lines


def _measures(table: Mapping[str, Row]) -> str:
    lines = ["## Measures", ""]
    lines += [f"- **{column.title}**: {column.meaning}." for column in COLUMNS.values()]
    sd, freedom = pooled_sd(table, "knn")
    spread, _ = pooled_sd(table, "linear")
    lines += [
        "",
        "Everything is measured on embeddings: the encoder's features before the projection "
        "head, scaled to unit length. Baselines are rows: raw pixels are measured in the "
        "process, all others through the server.",
    ]
    if freedom:
        lines.append(
            f"The standard deviation over seeds, pooled over all trained rows, is {sd:.4f} of "
            f"kNN and {spread:.4f} of linear ({freedom} degrees of freedom). Test images are "
            "the same for all; their own sampling error is about 0.004 (10,000 images) and is "
            "in the records."
        )
    return "\n".join([*lines, "", _provenance(table)])


def _provenance(table: Mapping[str, Row]) -> str:
    runs: list[Record] = [run for row in table.values() for run in row.runs]
    machines = sorted({str(run.machine.get("processor")) for run in runs})
    torch = sorted({run.versions.get("torch", "?") for run in runs})
    packages = len({run.package for run in runs})
    trained = [run.precision for run in runs if run.training]
    return (
        f"{len(runs)} runs ({trained.count('bf16')} trained in bf16, "
        f"{trained.count('fp32')} in float32) on "
        f"{', '.join(machines)} with torch {', '.join(torch)}, one thread "
        f"each, from {packages} states of the package. A record holds the digest of the whole "
        "package; a run is done again when its recipe, the objective's own code or the shared "
        "protocol changes.\n"
    )


def _missing(table: Mapping[str, Row]) -> str:
    gone = [name for name, row in table.items() if not row.runs and not row.failures]
    failed = [f"- `{name}`: {text}" for name, row in table.items() for text in row.failures]
    lines = []
    if gone:
        lines += ["## Not run yet", "", ", ".join(f"`{name}`" for name in gone) + ".", ""]
    if failed:
        lines += ["## Failed", "", *failed, ""]
    return "\n".join(lines)
