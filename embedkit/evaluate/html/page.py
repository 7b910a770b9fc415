"""The page: what the template shows, worked out from ``report.json``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from embedkit.evaluate.html.plots import Drawing, Grid, Table, draw_figures
from embedkit.evaluate.html.strip import draw_strip
from embedkit.evaluate.html.verdict import Reading, Verdict, judge
from embedkit.evaluate.html.words import ABOUT, DESCRIPTIVE, HEADLINES, glossary, term_of

__all__ = ["Row", "Section", "render"]

Json = Mapping[str, object]

FOLDER = Path(__file__).parent
_LONG_TABLE = 16
_BY_NAME = ("ood", "shifted")


@dataclass(frozen=True)
class Row:
    """One metric of a table.

    Attributes:
        name: Path without the task's name.
        value: The number as text.
        interval: Its interval as text, or empty.
        n: Items behind it.
        unit: Its unit.
        baselines: Value of each baseline as text, by name.
        verdict: How it compares with them.
        strip: The same as a small drawing; empty where the scale has no ends.
        definition: Anchor of the term that explains it; empty without one.
    """

    name: str
    value: str
    interval: str
    n: int
    unit: str
    baselines: Mapping[str, str]
    verdict: Verdict
    strip: Markup
    definition: str = ""


@dataclass(frozen=True)
class Section:
    """One task.

    Attributes:
        task: Registry name.
        title: What a person calls it.
        about: What it asks.
        status: ``ok``, ``skipped`` or ``failed``.
        warnings: Sentences to read before the numbers.
        rows: All metrics.
        headlines: Those for the summary.
        baselines: Names of the baselines that have a column.
        glossary: Terms and their meaning.
        drawings: Plots and picture grids.
        cost: What the answer needed, as text.
        folded: Whether the table is long enough to start closed.
    """

    task: str
    title: str
    about: str
    status: str
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]
    headlines: tuple[Row, ...]
    baselines: tuple[str, ...]
    glossary: Sequence[tuple[str, str]]
    drawings: Sequence[Drawing | Grid | Table]
    cost: str
    folded: bool


def render(report: Json) -> str:
    """Return the report as one HTML page.

    Args:
        report: The content of ``report.json``. Its texts (names of data sets and classes,
            messages) are not trusted: all are escaped, and the page forbids itself scripts
            and the network.

    Returns:
        The page; it needs no other file.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [_section(result, report) for result in _mappings(report["results"])]
    columns = {name for section in sections for name in section.baselines}
    return environment.get_template("report.html.jinja").render(
        report=report,
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        sections=sections,
        baselines=sorted(columns, key=_baseline_order),
        gates=list(_mappings(report["gates"])),
        provenance=_provenance(report),
    )


def _section(result: Json, report: Json) -> Section:
    task = str(result["task"])
    title, about = ABOUT.get(task, (task, ""))
    metrics, beside = _mapping(result["metrics"]), _mapping(result["baselines"])
    others = {name: _mapping(values) for name, values in beside.items()}
    rows = tuple(_row(task, name, _mapping(metric), others) for name, metric in metrics.items())
    pattern = HEADLINES.get(task, re.escape(rows[0].name) if rows else "")
    warnings = result["warnings"]
    return Section(
        task=task,
        title=title,
        about=about,
        status=str(result["status"]),
        warnings=tuple(map(str, warnings)) if isinstance(warnings, list | tuple) else (),
        rows=rows,
        headlines=tuple(row for row in rows if re.fullmatch(pattern, row.name)),
        baselines=tuple(sorted(others, key=_baseline_order)),
        glossary=glossary(metrics),
        drawings=draw_figures(_figures_of(task, report)),
        cost=_cost(_mapping(result["cost"]), _mapping(report["timing"]).get(task)),
        folded=len(rows) > _LONG_TABLE,
    )


def _row(task: str, name: str, metric: Json, others: Mapping[str, Json]) -> Row:
    reading = Reading.of(metric)
    beside = {
        baseline: Reading.of(_mapping(values[name]))
        for baseline, values in others.items()
        if name in values
    }
    text = _text(reading)
    verdict = judge(reading, beside)
    if term_of(name) in DESCRIPTIVE:
        verdict = Verdict("none", "says how the model is, and not how good")
    interval = ""
    if reading.has_interval:
        interval = f"{_in_unit(reading.low, reading)} to {_in_unit(reading.high, reading)}"
    return Row(
        name,
        text,
        interval,
        reading.n,
        reading.unit,
        {baseline: _text(other) for baseline, other in beside.items()},
        verdict,
        draw_strip(reading, list(beside.values())),
        f"{task}-{term_of(name)}" if term_of(name) else "",
    )


def _text(reading: Reading) -> str:
    return "not finite" if reading.value is None else _in_unit(reading.value, reading)


def _in_unit(value: float, reading: Reading) -> str:
    """Shares with three decimals, counts whole, everything else with three digits."""
    if reading.unit == "fraction":
        return f"{value:.3f}"
    if reading.unit in ("count", "queries") or abs(value) >= 1000:
        return f"{value:,.0f}"
    # A cosine near 1 is all about its distance from 1.
    return f"{value:.8g}" if reading.unit == "cosine" and value > 0.99 else f"{value:.3g}"


def _cost(cost: Json, seconds: object) -> str:
    parts = [
        f"{value:,.0f} {name.replace('_', ' ')}"
        for name, value in cost.items()
        if isinstance(value, int | float)
    ]
    if isinstance(seconds, int | float):
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)


def _provenance(report: Json) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of what produced the numbers: model, each data set, the run."""
    data = _mapping(report["data"])
    sets = {role: value for role, value in data.items() if role not in _BY_NAME}
    for role in _BY_NAME:
        named = _mapping(data.get(role))
        sets |= {f"{role}: {name}": value for name, value in named.items()}
    groups = [("model", _flat(_mapping(report["model"])))]
    groups += [(role, _flat(_mapping(value))) for role, value in sets.items()]
    groups.append(("run", _flat(_mapping(report["run"]))))
    return groups


def _flat(values: Json, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of dotted name and text; long lists are cut."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            shown = ", ".join(map(str, value[:20]))
            lines.append((prefix + key, shown + (", ..." if len(value) > 20 else "")))
        elif value != "":
            lines.append((prefix + key, str(value)))
    return lines


def _figures_of(task: str, report: Json) -> dict[str, Json]:
    figures = _mapping(_mapping(report["figures"]).get(task))
    return {name: _mapping(figure) for name, figure in figures.items()}


def _baseline_order(name: str) -> tuple[int, str]:
    known = ("raw_pixels", "random_encoder", "random_noise")
    return (known.index(name) if name in known else len(known)), name


def _mapping(values: object) -> Json:
    return values if isinstance(values, Mapping) else {}


def _mappings(values: object) -> list[Json]:
    return [_mapping(value) for value in values] if isinstance(values, list | tuple) else []
