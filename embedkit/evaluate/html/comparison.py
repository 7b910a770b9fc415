"""Two models on one page: differences with intervals, and the images that changed sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from embedkit.evaluate.html.flips import Flips
from embedkit.evaluate.html.words import ABOUT, glossary, term_of
from embedkit.evaluate.measurement.comparison import Comparison, Stored
from embedkit.evaluate.measurement.comparison.direction import counts_failures
from embedkit.evaluate.statistics import Difference, holm

__all__ = ["render_comparison"]

FOLDER = Path(__file__).parent
_WIDTH, _HEIGHT, _MARGIN = 180, 16, 6
_TESTS = {
    "mcnemar_exact": "right or wrong, image by image: among the images on which the models "
    "disagree each side is a fair coin if neither is better (McNemar 1947, exact)",
    "delong_paired": "two AUROCs over the same images, with the covariance of their scores "
    "(DeLong et al. 1988)",
    "sign_flip": "the mean of a number per image: signs of the differences are flipped at "
    "random (Fisher's randomisation test)",
}
_PREDICTIONS, _WRONG = "predictions", "wrong"
_RIGHT = "share of test images that are given the right class"
_ERRORS = "share of the images that are given the wrong class; smaller is better"
_OTHER = "mean over the items that both reports hold"


@dataclass(frozen=True)
class Row:
    """One difference of the table.

    Attributes:
        name: Path without the task's name.
        difference: The numbers.
        p_adjusted: p value adjusted for the number of differences.
        light: ``good`` if the second model is better, ``bad`` if worse, ``none`` if nothing is
            shown.
        strip: The interval beside zero as a small drawing.
        term: Anchor of the term that explains the number.
    """

    name: str
    difference: Difference
    p_adjusted: float
    light: str
    strip: Markup
    term: str


def render_comparison(
    first: Stored, second: Stored, found: Comparison, flips: Sequence[Flips] = ()
) -> str:
    """Return the comparison as one HTML page.

    Args:
        first: The report of model A.
        second: The report of model B.
        found: What :func:`compare_reports` says of them.
        flips: Images that one model alone has right.

    Returns:
        The page; it needs no other file, and forbids itself scripts and the network.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = _groups(found)
    rows = [row for _, _, rows in groups for row in rows]
    return environment.get_template("comparison.html.jinja").render(
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        models=[_model(first), _model(second)],
        test=_mapping(_mapping(first.values["data"])["test"]),
        groups=groups,
        better=sum(row.light == "good" for row in rows),
        worse=sum(row.light == "bad" for row in rows),
        equal=sum(row.light == "none" for row in rows),
        skipped=found.skipped,
        notes=found.notes,
        flips=flips,
        terms=_terms(rows),
        tests={name: _TESTS[name] for name in {row.difference.test: 0 for row in rows}},
    )


def _groups(found: Comparison) -> list[tuple[str, str, list[Row]]]:
    """Task, its title, and its rows."""
    adjusted = holm([d.p_value for d in found.differences.values()])
    # One scale for all rows of a task, so that they can be compared by eye.
    reach: dict[str, float] = {}
    for name, d in found.differences.items():
        task = name.partition(".")[0]
        reach[task] = max(reach.get(task, 1e-9), *map(abs, d.ci or (d.value,)))
    rows: dict[str, list[Row]] = {}
    for (name, d), p in zip(found.differences.items(), adjusted, strict=True):
        task, _, rest = name.partition(".")
        light = {"A": "bad", "B": "good", None: "none"}[d.better(p)]
        strip = _strip(d, reach[task] if d.higher_is_better else -reach[task])
        rows.setdefault(task, []).append(Row(rest, d, p, light, strip, _term(rest)))
    return [(task, ABOUT.get(task, (task, ""))[0], part) for task, part in rows.items()]


def _term(name: str) -> str:
    if _PREDICTIONS in name:
        return _PREDICTIONS
    return term_of(name) or (_WRONG if counts_failures(name) else "other")


def _terms(rows: Sequence[Row]) -> dict[str, str]:
    known = dict(glossary(row.name for row in rows))
    own = {_PREDICTIONS: _RIGHT, _WRONG: _ERRORS, "other": _OTHER}
    return {row.term: own.get(row.term) or known.get(row.term, _OTHER) for row in rows}


def _strip(d: Difference, reach: float) -> Markup:
    """The interval (bar), if there is one, and the value (dot) around zero (tick).

    Right of zero B is better: a negative reach turns the scale of what should be small.
    """

    def place(value: float) -> str:
        half = _WIDTH / 2 - _MARGIN
        return f"{_WIDTH / 2 + max(min(value / reach, 1), -1) * half:.1f}"

    middle = _HEIGHT / 2
    low, high = d.ci or (d.value, d.value)
    return Markup(
        '<svg class="strip wide" viewBox="0 0 {w} {h}" aria-hidden="true">'
        '<line class="scale" x1="{m}" x2="{r}" y1="{y}" y2="{y}"/>'
        '<line class="rival" x1="{zero}" x2="{zero}" y1="2" y2="14"/>'
        '<line class="interval" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
        '<circle class="value" cx="{value}" cy="{y}" r="3.5"/></svg>'
    ).format(
        w=_WIDTH,
        h=_HEIGHT,
        m=_MARGIN,
        r=_WIDTH - _MARGIN,
        y=middle,
        zero=place(0),
        low=place(low),
        high=place(high),
        value=place(d.value),
    )


def _model(report: Stored) -> dict[str, str]:
    model = _mapping(report.values.get("model"))
    run = _mapping(report.values.get("run"))
    return {
        "name": str(model.get("name") or "unnamed model"),
        "version": str(model.get("version", "")),
        "digest": str(model.get("digest", "")),
        "started": str(run.get("started", ""))[:10],
        "status": str(report.values.get("status", "")),
        "path": report.path.parent.name,
    }


def _mapping(values: object) -> Mapping[str, object]:
    return values if isinstance(values, Mapping) else {}
