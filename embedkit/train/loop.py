"""The training loop: one run, from recipe to weights, in the order in which it happens."""

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from embedkit.errors import Cancelled, InvalidInput, MissingDependency, TrainingDiverged
from embedkit.train.images import TrainingImages, load_images, seed_of
from embedkit.train.learner import State, build_state
from embedkit.train.monitor import Measures, Monitor, Report
from embedkit.train.monitor.watch import Watch
from embedkit.train.objective import Objective, Taught, build_objective
from embedkit.train.optim import average, rate_at, set_learning_rate
from embedkit.train.recipe import Recipe
from embedkit.train.run.bundles import LoadBundle, embed_all
from embedkit.train.run.divergence import diverged
from embedkit.train.run.folder import RunFolder, RunResult, versions
from embedkit.train.run.interrupt import interruptible
from embedkit.train.run.memory import kept_memory
from embedkit.train.run.selection import select_images
from embedkit.train.scale.gradient import Found, Gradient
from embedkit.train.scale.gradient_cache import check_parts
from embedkit.train.scale.precision import autocast, emulation_warning, used_precision
from embedkit.train.scale.processes import Processes, joined
from embedkit.train.supply import Supply, augment_of
from embedkit.train.supply.features import embed_some
from embedkit.train.supply.groups import regroup

__all__ = ["train"]


@dataclass(frozen=True)
class _Run:
    """What stays the same from step to step."""

    recipe: Recipe
    folder: RunFolder
    objective: Objective
    images: TrainingImages
    supply: Supply
    device: torch.device
    processes: Processes
    steps_per_epoch: int
    steps: int


@dataclass(frozen=True)
class _Done:
    """What one step leaves to be written down."""

    found: Found
    grad_norm: float
    lr: float


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    device: str = "auto",
    load_bundle: LoadBundle | None = None,
) -> RunResult:
    """Train an encoder; under ``torchrun``, on all its processes together.

    The same recipe, data, device and number of threads give the same weights, bit for bit on
    the CPU, whether or not the run was interrupted and resumed.

    Args:
        recipe: What to do.
        out: The run folder; created. It gets ``recipe.toml``, ``metrics.jsonl``,
            ``checkpoint.pt`` and, at the end, ``encoder.safetensors``, ``encoder.json``,
            ``run.json`` and, where the objective trains a classifier, ``head.npz``.
        resume: Go on from the checkpoint in ``out``; start from the beginning without one.
        report: Called with every line of the metrics.
        device: ``cpu``, ``cuda`` or ``auto``, which takes a GPU where there is one.
        load_bundle: Opens the bundles that some objectives learn from: ``embedkit.load``.

    Returns:
        What the run says of itself.

    Raises:
        AlreadyExists: If there is a run in ``out`` and ``resume`` is not set.
        InvalidInput: If recipe and data do not fit, or the run has others; says what to change.
        TrainingDiverged: If the loss, or what the network makes of its last batch, is not
            finite; names the step and the file of the batch.
        Cancelled: If interrupted by SIGINT or SIGTERM; a checkpoint was written.
    """
    with joined(device) as processes, kept_memory():
        run = _prepare(recipe, Path(out), device, load_bundle, processes)
        return _train(run, resume, report)


def _train(run: _Run, resume: bool, report: Report | None) -> RunResult:
    """Open the folder, take the steps that are left, and finish."""
    recipe = run.recipe
    cuda = [run.device.index or 0] if run.device.type == "cuda" else []
    # Dropout draws from the global generator: it is seeded here, and given back as it was.
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed_of(recipe.seed, "global", 0))
        state = _state(run)
        finished = _open(run, resume)
        if finished is not None:
            return finished
        monitor = _monitor(run, state, report)
        gradient = Gradient.prepare(recipe, state, run.processes)
        with interruptible() as is_interrupted, _watch(run, monitor, state.step) as watch:
            _steps(run, gradient, watch, is_interrupted)
    return run.processes.first(lambda: _finish(run, state, monitor), run.folder.finished)


# ----------------------------------------------------------------------------- before the loop


def _prepare(
    recipe: Recipe,
    out: Path,
    device: str,
    load_bundle: LoadBundle | None,
    processes: Processes,
) -> _Run:
    """Read the data, and check that recipe, data and processes fit."""
    objective = build_objective(recipe.objective.name, recipe.objective.arguments)
    where = _device(device, processes)
    processes.check(recipe.schedule.batch_size)
    check_parts(recipe, objective, processes.size)
    images = select_images(load_images(recipe, objective, where), recipe, load_bundle)
    images = embed_all(images, objective, load_bundle)
    supply = Supply(objective, images, augment_of(recipe, objective, images.spec))
    per_epoch = _steps_per_epoch(recipe, len(images))
    steps = per_epoch * recipe.schedule.epochs
    if recipe.schedule.max_steps:
        steps = min(steps, recipe.schedule.max_steps)
    folder = RunFolder(out, recipe)
    return _Run(recipe, folder, objective, images, supply, where, processes, per_epoch, steps)


def _state(run: _Run) -> State:
    """Build everything that is trained, at step 0."""
    anew = not run.folder.checkpoint.exists()
    state = build_state(run.recipe, run.objective, run.images, run.device, anew=anew)
    rows, columns = state.learner.encoder.grid
    if "mask" in run.objective.needs and rows * columns < 2:
        raise InvalidInput(
            "expected at least 2 patches in an image, so that one is hidden and one is seen, "
            f"got {rows} x {columns}; lower encoder.patch"
        )
    return state


def _open(run: _Run, resume: bool) -> RunResult | None:
    """Touch the folder at last, since all that is checked was; return a finished run's result.

    Raises:
        AlreadyExists: If there is a run and ``resume`` is not set.
        InvalidInput: If the run has another recipe, or other data.
    """
    path, recipe = run.folder.path, run.recipe
    run.processes.first(lambda: RunFolder.open(path, recipe, resume=resume), lambda: run.folder)
    run.processes.check_same(run.folder.files, "number of files")
    return run.folder.result_on(run.images)


def _steps_per_epoch(recipe: Recipe, images: int) -> int:
    schedule = recipe.schedule
    count = images // schedule.batch_size // schedule.accumulate
    if not count:
        raise InvalidInput(
            f"expected at least {schedule.batch_size * schedule.accumulate} images for a step "
            f"of {schedule.accumulate} batches, got {images}; lower schedule.accumulate"
        )
    return count


def _device(name: str, processes: Processes) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"expected the device auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingDependency(
            "expected a CUDA device, got none that torch can see; use --device cpu"
        )
    is_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda", processes.local_rank) if is_gpu else torch.device("cpu")


def _monitor(run: _Run, state: State, report: Report | None) -> Monitor:
    """Restore the checkpoint if there is one, and start the clock where it ended."""
    warnings = run.folder.restore(state, run.images)
    run.processes.check_same(state.step, "step")
    batch_size = run.recipe.schedule.batch_size * run.recipe.schedule.accumulate
    # Processes that write no files compute the same numbers for nobody.
    path, tell = run.folder.metrics, report
    if not run.processes.is_first:
        path, tell = Path(os.devnull), None
    monitor = Monitor(path, run.steps, run.steps_per_epoch, batch_size, tell)
    monitor.seconds, monitor.warnings = state.seconds, warnings
    monitor.warn(emulation_warning(run.recipe.run.precision, run.device))
    monitor.settled = _warmup(run)
    monitor.start(state.step)
    return monitor


def _watch(run: _Run, monitor: Monitor, step: int) -> Watch:
    """The monitor with what it looks at and writes to, on the process that writes."""
    images, is_first = run.images, run.processes.is_first
    return Watch.open(run.recipe, monitor, images, run.folder.path, step, writes=is_first)


def _warmup(run: _Run) -> int:
    """Steps until the learning rate is at its peak."""
    return min(round(run.recipe.schedule.warmup_epochs * run.steps_per_epoch), run.steps)


# ------------------------------------------------------------------------------------ the loop


def _steps(
    run: _Run, gradient: Gradient, watch: Watch, is_interrupted: Callable[[], bool]
) -> None:
    """Take all steps that are left."""
    state, monitor = gradient.state, watch.monitor
    settings = run.recipe.run
    checkpoint_steps = settings.checkpoint_steps or run.steps_per_epoch
    while state.step < run.steps:
        _group(run, state)
        done = _step(run, gradient)
        is_last = state.step == run.steps
        if is_last or watch.is_due(state.step):
            _check_network(run, state, done)
        if state.step % settings.log_steps == 0 or is_last or watch.is_due(state.step):
            monitor.record(
                state.step,
                done.found.loss,
                features=done.found.features,
                grad_norm=done.grad_norm,
                lr=done.lr,
                knn=watch.look(state.final().encoder, state.step),
            )
        stops = run.processes.any(is_interrupted()) and not is_last
        if state.step % checkpoint_steps == 0 or is_last or stops:
            state.seconds = monitor.elapsed()
            if run.processes.is_first:
                run.folder.save(state, run.images, monitor.warnings)
                watch.write_page()
        if stops:
            raise Cancelled(
                f"interrupted at step {state.step} of {run.steps}; the checkpoint is written, "
                "continue with --resume"
            )


def _group(run: _Run, state: State) -> None:
    """Cluster the images anew if it is time; never before the encoder has learned something."""
    settings = run.recipe.sampling
    every = settings.refresh_epochs * run.steps_per_epoch
    if settings.batches != "shuffled" and state.step and state.step % every == 0:
        state.groups = run.processes.same(regroup(run.recipe, state, run.images))


def _step(run: _Run, gradient: Gradient) -> _Done:
    """Gradient, step, averages."""
    recipe, state, step = run.recipe, gradient.state, gradient.state.step
    found = gradient.take(lambda number: _loss(run, state, number))
    limit = recipe.optimiser.clip_norm or math.inf
    grad_norm = float(torch.nn.utils.clip_grad_norm_(state.learner.parameters(), limit))
    # All processes stop together: one that went on alone would wait for the others for ever.
    if run.processes.any(not math.isfinite(float(found.loss.total.detach()) + grad_norm)):
        raise _diverged(run, found, step, grad_norm)

    schedule, peak = recipe.schedule, recipe.optimiser.lr
    lr = rate_at(step, schedule, total=run.steps, warmup=_warmup(run), peak=peak)
    set_learning_rate(state.optimiser, lr)
    state.optimiser.step()

    if state.teacher is not None and isinstance(run.objective, Taught):
        average(state.teacher, state.learner, run.objective.teacher_momentum(step / run.steps))
    if state.average is not None:
        # The first averages would be mostly initial weights: they follow faster.
        average(state.average, state.learner, min(recipe.run.ema, (1 + step) / (10 + step)))
    state.step += 1
    return _Done(found, grad_norm, lr)


def _check_network(run: _Run, state: State, done: _Done) -> None:
    """Raise TrainingDiverged if the step that was just taken made the weights useless.

    The next step's loss would tell; the last step has none, and a probe needs them now.
    """
    # A copy is never a compiled network, which would be compiled anew for evaluation.
    encoder = copy.deepcopy(state.final().encoder)
    features = embed_some(encoder, run.images, done.found.indices)
    if run.processes.any(not np.isfinite(features).all()):
        raise _diverged(run, done.found, state.step, done.grad_norm, stepped=True)


def _diverged(
    run: _Run, found: Found, step: int, grad_norm: float, *, stepped: bool = False
) -> TrainingDiverged:
    """The error of every process; the others wait until the first has written the batch."""
    where, images, indices = run.folder.path, run.images, found.indices
    error = partial(
        diverged, where, images, indices, step, found.loss, grad_norm, stepped=stepped
    )
    return run.processes.first(partial(error, writes=True), partial(error, writes=False))


def _loss(run: _Run, state: State, number: int) -> Found:
    """Draw the views of one of the step's batches, run networks and objective."""
    recipe, schedule = run.recipe, run.recipe.schedule
    # An epoch's batches that make no whole step are left out, as its last partial batch is.
    epoch, step = divmod(state.step, run.steps_per_epoch)
    size, seed = schedule.batch_size, recipe.seed
    number += epoch * (len(run.images) // size) + step * schedule.accumulate
    indices = run.images.indices(number, batch_size=size, seed=seed, groups=state.groups)
    generator = torch.Generator(run.device).manual_seed(seed_of(seed, "step", number))
    drawn = run.supply.draw(state.learner, indices, generator)
    with autocast(recipe.run.precision, run.device):
        progress = state.step / run.steps
        batch = run.supply.batch(state, drawn, indices, generator, progress)
        return Found(run.objective(batch), batch.features, indices)


# ------------------------------------------------------------------------------ after the loop


def _finish(run: _Run, state: State, monitor: Monitor) -> RunResult:
    """Write the weights and what the run says of itself."""
    # Read back, because a run that was killed right here has no step left to measure.
    last = run.folder.last_metrics()
    schedule, seconds = run.recipe.schedule, round(state.seconds, 3)
    precision = used_precision(run.recipe.run.precision, run.device)
    images = state.step * schedule.batch_size * schedule.accumulate
    result = RunResult(
        recipe_digest=run.recipe.digest,
        data_digest=run.images.digest,
        objective=run.recipe.objective.name,
        class_names=run.images.class_names,
        images=len(run.images),
        skipped=run.images.skipped,
        steps=state.step,
        seconds=seconds,
        images_per_s=round(images / max(seconds, 1e-9), 1),
        loss=float(last["loss"] or 0.0),
        measures={field.name: last[field.name] for field in fields(Measures)},
        warnings=tuple(monitor.warnings),
        device=f"{run.device.type}, {torch.get_num_threads()} threads, {precision}",
        versions=versions(),
        embedder_digests=run.images.embedder_digests,
    )
    return run.folder.finish(state.final(), run.objective, run.images, result)
