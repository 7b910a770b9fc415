"""``embedkit eval compare`` and ``seeds``: what several reports say of one another."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.errors import EmbedkitError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedkit.evaluate.measurement.comparison import Comparison, Stored
    from embedkit.evaluate.statistics import Spread

__all__ = ["compare", "seeds"]

_REPORT = click.Path(path_type=Path)


@click.command(name="compare")
@click.argument("first", metavar="A.json", type=_REPORT)
@click.argument("second", metavar="B.json", type=_REPORT)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page that shows the differences.",
)
@click.option(
    "--images", metavar="DATA", help="The test images of both; the page shows those that flip."
)
def compare(
    first: Path, second: Path, as_json: bool, page: Path | None, images: str | None
) -> None:
    """Compare two models image by image: is B better than A?

    Both reports must be over the same test images. Right and wrong answers are compared by
    McNemar's exact test, AUROC by the paired test of DeLong, means by sign flips; p values are
    adjusted for their number (Holm).
    """
    from embedkit.evaluate.measurement.comparison import (
        are_the_same,
        compare_reports,
        read_report,
    )

    if images is not None and page is None:
        raise InvalidInput("expected --html FILE with --images, got none")
    reports = read_report(first), read_report(second)
    found = compare_reports(*reports)
    if not found.differences:
        raise EmbedkitError(
            f"expected two reports with something to compare, got {first} and {second} with "
            f"nothing: {_reasons(found.skipped)}; evaluate both with a common --suite"
        )
    if are_the_same(*reports):
        click.echo(
            f"note: {first} and {second} are about the same model with the same results",
            err=True,
        )
    _print_notes(found.notes)
    if page is not None:
        _write_page(page, reports, found, images)
    if as_json:
        click.echo(json.dumps(_as_values(found), indent=1))
        return
    _print_comparison(found)


def _write_page(
    page: Path, reports: "tuple[Stored, Stored]", found: "Comparison", images: str | None
) -> None:
    from embedkit.data.source import load_dataset
    from embedkit.evaluate.html import render_comparison
    from embedkit.evaluate.html.flips import find_flips

    flips = [] if images is None else find_flips(*reports, load_dataset(images))
    text = render_comparison(*reports, found, flips)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EmbedkitError(
            f"expected a place to write the page to (--html), got {page}: {error.strerror}"
        ) from error
    click.echo(f"page: {page}", err=True)


@click.command(name="seeds")
@click.argument("reports", metavar="REPORT.json...", nargs=-1, required=True, type=_REPORT)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def seeds(reports: tuple[Path, ...], as_json: bool) -> None:
    """Mean of each metric over several training runs, and how much the runs differ.

    The spread over runs (sd) is kept apart from the error of sampling test images, which all
    runs share.
    """
    from embedkit.evaluate.measurement.comparison import (
        left_out,
        missing_tasks,
        notes_on,
        read_report,
        spread_of_reports,
    )

    stored = [read_report(path) for path in reports]
    found, missing = spread_of_reports(stored), missing_tasks(stored) | left_out(stored)
    if not found:
        raise EmbedkitError(
            f"expected reports with a metric in common, got {len(stored)} without: "
            f"{_reasons(missing)}; evaluate all with a common --suite"
        )
    for subject, reason in missing.items():
        click.echo(f"{subject}: {reason}", err=True)
    _print_notes(notes_on(stored))
    if as_json:
        click.echo(json.dumps({name: asdict(s) for name, s in found.items()}, indent=1))
        return
    _print_spread(found, len(reports))


def _print_notes(notes: "Sequence[str]") -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _reasons(by_task: "Mapping[str, str]") -> str:
    found = "; ".join(f"{task}: {reason}" for task, reason in by_task.items())
    return found or "they have no metrics"


def _as_values(found: "Comparison") -> dict[str, object]:
    from embedkit.evaluate.statistics import holm

    adjusted = holm([d.p_value for d in found.differences.values()])
    pairs = zip(found.differences.items(), adjusted, strict=True)
    return {
        "differences": {
            name: {**asdict(d), "value": d.value, "p_adjusted": p, "better": d.better(p)}
            for (name, d), p in pairs
        },
        "skipped": dict(found.skipped),
        "notes": list(found.notes),
    }


def _print_comparison(found: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    from embedkit.evaluate.statistics import holm

    table = Table("what", "A", "B", "B - A", "95 %", "p", "p adjusted", "better", "test", "n")
    adjusted = holm([d.p_value for d in found.differences.values()])
    for (name, d), p in zip(found.differences.items(), adjusted, strict=True):
        table.add_row(
            name,
            f"{d.first:.4f}",
            f"{d.second:.4f}",
            f"{d.value:+.4f}",
            "-" if d.ci is None else f"[{d.ci[0]:+.4f}, {d.ci[1]:+.4f}]",
            f"{d.p_value:.3g}",
            f"{p:.3g}",
            d.better(p) or "-",
            d.test,
            str(d.n),
        )
    Console(width=160).print(table)
    for task, reason in found.skipped.items():
        click.echo(f"{task}: {reason}")


def _print_spread(found: "dict[str, Spread]", count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "mean", f"sd of {count} runs", "95 % over runs", "95 % sampling")
    for name, s in found.items():
        sampling = "-"
        if s.ci_sampling is not None:
            sampling = f"[{s.ci_sampling[0]:.4f}, {s.ci_sampling[1]:.4f}]"
        runs = f"[{s.ci_seeds[0]:.4f}, {s.ci_seeds[1]:.4f}]"
        table.add_row(name, f"{s.mean:.4f}", f"{s.sd_seeds:.4f}", runs, sampling)
    Console(width=140).print(table)
