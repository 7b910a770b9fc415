"""One run: train, export, serve, evaluate through gRPC."""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import embedkit
from embedkit.bundle import Bundle
from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.encoders.encoder import build_encoder
from embedkit.errors import NotFound
from embedkit.evaluate.context import BASELINES, Context, Options, Which
from embedkit.evaluate.report import Report
from embedkit.evaluate.run import evaluate
from embedkit.export.bundling import Additions, Target, bundle_source
from embedkit.export.run import export_run
from embedkit.export.source import Source
from embedkit.preprocess import InputSpec
from embedkit.runtime.environment import machine, package_versions
from embedkit.runtime.features import RawPixels
from embedkit.runtime.local import load
from embedkit.serve.server import running_server
from embedkit.train.loop import train
from embedkit.types import Embedder
from tools.board.entries import IMAGES, Entry
from tools.board.record import Record

__all__ = ["OPTIONS", "SUITE", "Alone", "Images", "bundle_of", "measure", "perform", "scores"]

SUITE = ("knn", "linear", "few_shot", "ood", "corruption", "robustness", "geometry")
OPTIONS = Options(
    shots=(1, 5, 20),
    shot_draws=5,
    view_images=500,
    corruption_images=300,
    severities=(3,),
    attack_images=100,
    pgd_steps=10,
    square_queries=100,
    radii_255=(2.0, 8.0),
)
"""Small enough that an evaluation takes less time than the training; intervals tell."""

NOVEL = ("kmnist_test", "notmnist_test")
NOVEL_IMAGES = 2000
_PACKAGES = ("torch", "numpy", "onnxruntime", "scikit-learn")


@dataclass(frozen=True)
class Images:
    """The data of every run.

    Attributes:
        source: DATA string of the training images.
        train: The images trained on, which are also the bank of neighbours.
        test: All test images.
        novel: Sets that should look novel, by name.
    """

    source: str
    train: Dataset
    test: Dataset
    novel: dict[str, Dataset]

    @classmethod
    def read(cls, folder: Path) -> "Images":
        """Read Fashion-MNIST, KMNIST and notMNIST from a folder of ``.npz`` files."""
        source = str(folder / "fashion_mnist.npz")
        novel = {n: _first(load_dataset(f"{folder / n}.npz"), NOVEL_IMAGES) for n in NOVEL}
        train = _first(load_dataset(source), IMAGES)
        return cls(source, train, load_dataset(f"{source}:test"), novel)


class Alone(Context):
    """A context without baselines: they are rows of their own."""

    def embedder(self, which: Which) -> Embedder:
        """The served model or its twin."""
        if which in BASELINES:
            raise NotFound(f"expected no baselines: {which} is a row of its own")
        return super().embedder(which)


def perform(entry: Entry, plan: Record, folder: Path, images: Images) -> Record:
    """Do one run, going on where an earlier attempt was killed.

    Args:
        entry: What to train.
        plan: The record to fill in.
        folder: Of all runs; a run's folder keeps its weights and its bundle.
        images: The data.

    Raises:
        EmbedkitError: If a step fails; nothing is recorded then.
    """
    context = {"images": images, "seed": plan.seed}
    shared = {"versions": package_versions(_PACKAGES), "machine": machine()}
    if entry.objective == "raw_pixels":
        served = RawPixels(InputSpec(*(images.train.image_shape or (28, 28, 1))))
        report = measure(served, None, SUITE, **context)
        return replace(plan, **_found(report, report.timing), transport="in-process", **shared)
    began = time.perf_counter()
    training = {}
    if entry.kind == "nothing":
        bundle = _untrained(entry, plan, folder, images)
    else:
        training, bundle = _trained(entry, plan, folder, images)
    export = time.perf_counter() - began - float(training.get("seconds", 0.0))
    with _served(bundle, folder / f"{entry.name}.{plan.seed}") as model:
        report = measure(model, bundle, SUITE, **context)
    found = _found(report, {"export": round(export, 2), **report.timing})
    return replace(plan, training=training, **found, **shared)


def measure(
    served: Embedder, bundle: Bundle | None, suite: tuple[str, ...], images: Images, seed: int
) -> Report:
    """Evaluate one model with the leaderboard's settings."""
    context = Alone(
        served,
        images.train,
        images.test,
        images.novel,
        bundle=bundle,
        seed=seed,
        options=OPTIONS,
    )
    return evaluate(context, suite)


def bundle_of(row: str, seed: int, folder: Path) -> Path:
    """Where the bundle of a run is."""
    return folder / f"{row}.{seed}" / "models" / row.replace("_", "-") / "1"


def scores(report: Report) -> dict[str, dict[str, object]]:
    """Every metric of a report, as ``<task>.<metric>``."""
    return {
        f"{result.task}.{name}": {
            "value": round(metric.value, 5),
            "ci": None if metric.ci is None else [round(end, 5) for end in metric.ci],
            "n": metric.n,
        }
        for result in report.results
        for name, metric in result.metrics.items()
        if _is_kept(f"{result.task}.{name}")
    }


def _is_kept(name: str) -> bool:
    """Whether a metric is worth a line in every record."""
    left_out = ("overlap", ".drift", "aupr", "fpr95", "_sd", ".3.error", "cosine_shift")
    return not any(part in name for part in left_out)


def _found(report: Report, seconds: dict[str, float]) -> dict[str, object]:
    """What a report says; failed tasks are named."""
    failed = [f"{r.task}: {'; '.join(r.warnings)}" for r in report.results if r.status != "ok"]
    problem = "; ".join([*failed, *report.problems])
    return {
        "metrics": scores(report),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "status": "failed" if problem else "ok",
        "problem": problem,
    }


def _trained(
    entry: Entry, plan: Record, folder: Path, images: Images
) -> tuple[dict[str, float | str], Bundle]:
    """Train, or finish an earlier attempt, and export."""
    run = folder / f"{entry.name}.{plan.seed}"
    bundles = tuple(str(bundle_of(row, plan.seed, folder)) for row in entry.teachers)
    recipe = entry.recipe(plan.seed, source=images.source, bundles=bundles)
    _forget_other(run, plan)
    is_whole = not (run / "run" / "recipe.toml").exists()
    began = time.process_time()
    result = train(recipe, run / "run", resume=True, device="cpu", load_bundle=load)
    training: dict[str, float | str] = {
        "seconds": result.seconds,
        "images_per_s": result.images_per_s,
        "steps": result.steps,
        "loss": round(result.loss, 4),
        "device": result.device,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if is_whole:
        # Of a run that goes on after a kill, this process sees only the end.
        training["cpu_seconds"] = round(time.process_time() - began, 1)
    (run / "run" / "checkpoint.pt").unlink(missing_ok=True)
    path = bundle_of(entry.name, plan.seed, folder)
    shutil.rmtree(path.parent, ignore_errors=True)
    return training, export_run(run / "run", name=path.parent.name, models=path.parent.parent)


def _forget_other(run: Path, plan: Record) -> None:
    """Remove what a run of another recipe or other code left."""
    mark = run / "digest"
    now = f"{plan.recipe} {plan.code}"
    if mark.exists() and mark.read_text() != now:
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    mark.write_text(now)


def _untrained(entry: Entry, plan: Record, folder: Path, images: Images) -> Bundle:
    """Export a network with its initial weights."""
    pixels = images.train.arrays(InputSpec(*(images.train.image_shape or (28, 28, 1))))
    unit = pixels.reshape(-1, pixels.shape[-1]) / np.float32(255)
    named = entry.changes.get("encoder", {"name": "resnet", "preset": "tiny", "stem": "half"})
    spec = InputSpec(*pixels.shape[1:])
    statistics = {
        "mean": [float(m) for m in unit.mean(0)],
        "std": [float(s) for s in unit.std(0)],
    }
    config = {**named, **statistics, "input": spec.to_dict()}
    path = bundle_of(entry.name, plan.seed, folder)
    shutil.rmtree(path.parent, ignore_errors=True)
    source = Source(build_encoder(config, seed=plan.seed), "none", "Untrained.")
    target = Target(path.parent.parent, path.parent.name)
    return bundle_source(source, target, Additions(known=images.train))


@contextmanager
def _served(bundle: Bundle, folder: Path) -> Iterator[Embedder]:
    """The bundle behind gRPC."""
    models, data_dir = bundle.path.parent.parent, folder / "var"
    with (
        running_server(models=models, data_dir=data_dir) as address,
        embedkit.connect(address) as client,
    ):
        yield client.model(bundle.path.parent.name)


def _first(dataset: Dataset, count: int) -> Dataset:
    return dataset.subset(np.arange(min(count, len(dataset))))
