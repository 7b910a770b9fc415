"""``embedkit eval``: a served model is measured through the wire."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.eval.attacks import AttackOptions, attack_options, attack_settings
from embedkit.cli.eval.certified import (
    CertifiedOptions,
    certified_options,
    certified_settings,
)
from embedkit.cli.eval.data import Data, Wanted, load
from embedkit.cli.options.names import names_in
from embedkit.cli.options.number import SEED, Number
from embedkit.errors import InvalidInput, ModelMismatch

if TYPE_CHECKING:
    from rich.console import Console

    from embedkit.bundle import Bundle
    from embedkit.client.served import ServedModel
    from embedkit.evaluate.context import Context
    from embedkit.evaluate.report import Subject
    from embedkit.types import Embedder


__all__ = ["command"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_SUITE = "classify,knn,linear,ood,robustness,parity"


class Options(Wanted, AttackOptions, CertifiedOptions):
    """The options of the command, as click hands them over."""

    model: str
    version: str
    detector: tuple[str, ...]
    suite: str
    bundle: Path | None
    models: Path
    out: Path
    gate: tuple[str, ...]
    seed: int
    probe_images: int
    baselines: bool
    corruption: tuple[str, ...]
    corruption_images: int
    cache: Path | None
    retry_s: float


@click.command(name="eval", context_settings={"show_default": True})
@click.pass_context
@connected(default=None)
@click.option("--model", default="", metavar="NAME", help="May be left out if one is served.")
@click.option("--version", default="", metavar="N", help="Version.  [default: the latest]")
@click.option("--train", required=True, metavar="DATA", help="Known images, to fit on.")
@click.option("--test", required=True, metavar="DATA", help="Known images, to score.")
@click.option(
    "--ood", multiple=True, metavar="DATA", help="Novel images; repeat for more sets."
)
@click.option(
    "--near", multiple=True, metavar="DATA", help="Novel images that resemble the known ones."
)
@click.option(
    "--far", multiple=True, metavar="DATA", help="Novel images that are nothing like them."
)
@click.option(
    "--shifted",
    multiple=True,
    metavar="DATA",
    help="Known images that look otherwise, for full-spectrum OOD.",
)
@click.option(
    "--detector",
    multiple=True,
    metavar="NAME,...",
    default=("knn", "mahalanobis"),
    help="OOD detectors to fit; all takes every one; repeat or use commas for more.",
)
@click.option("--strict", is_flag=True, help="An unreadable image is an error, not left out.")
@click.option("--suite", default=_SUITE, metavar="TASK,...", help="Tasks to run.")
@click.option(
    "--bundle",
    type=_FOLDER,
    help="The served bundle, for parity, white-box attacks and the random-encoder baseline.  "
    "[default: MODELS/NAME/VERSION]",
)
@click.option("--models", type=_FOLDER, default="models", help="Folder of all models.")
@click.option("--out", type=_FOLDER, required=True, help="Folder for the report.")
@click.option(
    "--gate",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 unless it holds, e.g. 'knn.top1>=0.95'; repeat for more.",
)
@click.option("--seed", type=SEED, default=0, help="Root of every random choice.")
@click.option(
    "--probe-images",
    type=click.IntRange(0),
    default=10_000,
    help="Training images of the linear probe; 0 takes all.",
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    help="Measure raw pixels and an untrained encoder too; raw pixels of many training images "
    "take longer than the model.",
)
@attack_options
@click.option(
    "--corruption",
    multiple=True,
    metavar="NAME,...",
    default=("common",),
    help="Corruptions, or sets of them: common, validation, mnist_c, system; repeat or use "
    "commas for more.",
)
@click.option(
    "--corruption-images",
    type=click.IntRange(0),
    default=200,
    help="Test images to corrupt; 0 takes all.",
)
@certified_options
@click.option("--cache", type=_FOLDER, help="Folder of embeddings.  [default: OUT/cache]")
@click.option("--retry-s", type=Number(0), default=10.0, help="Seconds to retry a call.")
def command(target: Target, ctx: click.Context, /, **options: Unpack[Options]) -> None:
    """Evaluate a served model and write report.json, report.html and junit.xml.

    The images are sent as they are, so that the server decodes them as it does in production.
    Ends with 0 if all is well, 1 if a gate, a task or the run failed or every task was skipped,
    2 on wrong usage.
    """
    from rich.console import Console

    from embedkit.cli.report_table import deliver
    from embedkit.evaluate.gate import parse_gate
    from embedkit.evaluate.report import Subject
    from embedkit.evaluate.run import check_suite, evaluate

    console = Console(stderr=True)
    names = (name.strip() for name in options["suite"].split(","))
    suite = check_suite([name for name in names if name])
    gates = [parse_gate(text, suite) for text in options["gate"]]
    data = load(options, console)
    options["out"].mkdir(parents=True, exist_ok=True)  # before the work, not after it
    with target.connect(retry_s=options["retry_s"]) as client:
        served = client.model(options["model"], options["version"])
        info = served.info
        subject = Subject(
            info.name, info.version, "grpc", target.server, info.provider, info.precision
        )
        with _progress(console, suite) as progress:
            context = _context(options, served, data, subject, progress)
            report = evaluate(context, suite, subject=subject, gates=gates)
    deliver(report, options["out"])
    for gate in report.gates:
        if gate.is_unknown:
            raise InvalidInput(gate.reason)
    ctx.exit(report.exit_code)


def _context(
    options: Options,
    served: "ServedModel",
    data: Data,
    subject: "Subject",
    progress: Callable[[str, float], None],
) -> "Context":
    """Everything that the tasks may look at."""
    from embedkit.evaluate.context import Context
    from embedkit.evaluate.context import Options as Settings
    from embedkit.evaluate.corruption import expand
    from embedkit.runtime.features import FeatureCache

    bundle, reason = _bundle(options, subject, served.digest)
    settings = Settings(
        probe_images=options["probe_images"],
        **attack_settings(options),
        **certified_settings(options),
        corruptions=names_in(options["corruption"]),
        corruption_images=options["corruption_images"],
        detectors=_detectors(options["detector"]),
        baselines=options["baselines"],
    )
    expand(settings.corruptions, settings.severities)
    return Context(
        served,
        data.train,
        data.test,
        data.ood,
        near=data.near,
        far=data.far,
        shifted=data.shifted,
        bundle=bundle,
        local=None if bundle is None else _session(bundle, served.info.precision),
        without_bundle=reason,
        seed=options["seed"],
        options=settings,
        cache=FeatureCache(options["cache"] or options["out"] / "cache"),
        progress=progress,
    )


def _detectors(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted detectors; ``all`` is every one."""
    from embedkit.detect.detector import detectors

    names = names_in(texts)
    if "all" in names:
        return detectors.names()
    for name in names:
        detectors.get(name)
    return names


def _bundle(options: Options, subject: "Subject", digest: str) -> "tuple[Bundle | None, str]":
    """The served model's bundle, or None and the reason.

    Raises:
        ModelMismatch: If a bundle was named and is another model than the served one.
    """
    from embedkit.bundle import Bundle

    path = options["bundle"] or options["models"] / subject.name / subject.version
    if options["bundle"] is None and not path.is_dir():
        return None, f"there is no bundle at {path}; give --bundle"
    bundle = Bundle(path)
    found = {bundle.model_digest(precision) for precision in bundle.precisions}
    if digest in found:
        return bundle, ""
    reason = f"expected the served model {digest} at {path}, got {', '.join(sorted(found))}"
    if options["bundle"] is not None:
        raise ModelMismatch(f"{reason}; give the --bundle that is served")
    return None, f"{reason}; give --bundle"


def _session(bundle: "Bundle", precision: str) -> "Embedder | None":
    """The served graph in this process, or None without onnxruntime."""
    try:
        from embedkit.runtime.local import load
    except ModuleNotFoundError:
        return None
    return load(bundle.path, precision=precision, verify=False)


@contextmanager
def _progress(
    console: "Console", suite: tuple[str, ...]
) -> Iterator[Callable[[str, float], None]]:
    """Show one bar over all tasks; each is an equal part of it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task("", total=len(suite))
        current = {"task": 0}

        def show(message: str, done: float) -> None:
            if message in suite:
                current["task"] = suite.index(message)
            bar.update(row, description=message, completed=current["task"] + min(done, 1.0))

        yield show
