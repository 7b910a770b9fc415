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

from embedkit.errors import Cancelled, TrainingDiverged
from embedkit.train.images import seed_of
from embedkit.train.learner import State
from embedkit.train.monitor import Measures, Monitor, Report
from embedkit.train.monitor.watch import Watch
from embedkit.train.objective import Taught
from embedkit.train.optim import average, rate_at, set_learning_rate
from embedkit.train.recipe import Recipe
from embedkit.train.run.bundles import LoadBundle
from embedkit.train.run.divergence import diverged
from embedkit.train.run.folder import RunResult, versions
from embedkit.train.run.interrupt import interruptible
from embedkit.train.run.memory import kept_memory
from embedkit.train.run.preparation import Run, open_folder, prepare, state_of
from embedkit.train.scale.gradient import Found, Gradient
from embedkit.train.scale.precision import autocast, emulation_warning, used_precision
from embedkit.train.scale.processes import joined
from embedkit.train.supply.features import embed_some
from embedkit.train.supply.groups import regroup

__all__ = ["train"]


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
        run = prepare(recipe, Path(out), device, load_bundle, processes)
        return _train(run, resume, report)


def _train(run: Run, resume: bool, report: Report | None) -> RunResult:
    """Open the folder, take the steps that are left, and finish."""
    recipe = run.recipe
    cuda = [run.device.index or 0] if run.device.type == "cuda" else []
    # Dropout draws from the global generator: it is seeded here, and given back as it was.
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed_of(recipe.seed, "global", 0))
        state = state_of(run)
        finished = open_folder(run, resume)
        if finished is not None:
            return finished
        monitor = _monitor(run, state, report)
        gradient = Gradient.prepare(recipe, state, run.processes)
        with interruptible() as is_interrupted, _watch(run, monitor, state.step) as watch:
            _steps(run, gradient, watch, is_interrupted)
    return run.processes.first(lambda: _finish(run, state, monitor), run.folder.finished)


def _monitor(run: Run, state: State, report: Report | None) -> Monitor:
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


def _watch(run: Run, monitor: Monitor, step: int) -> Watch:
    """The monitor with what it looks at and writes to, on the process that writes."""
    images, is_first = run.images, run.processes.is_first
    return Watch.open(run.recipe, monitor, images, run.folder.path, step, writes=is_first)


def _warmup(run: Run) -> int:
    """Steps until the learning rate is at its peak."""
    return min(round(run.recipe.schedule.warmup_epochs * run.steps_per_epoch), run.steps)


def _steps(
    run: Run, gradient: Gradient, watch: Watch, is_interrupted: Callable[[], bool]
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


def _group(run: Run, state: State) -> None:
    """Cluster the images anew if it is time; never before the encoder has learned something."""
    settings = run.recipe.sampling
    every = settings.refresh_epochs * run.steps_per_epoch
    if settings.batches != "shuffled" and state.step and state.step % every == 0:
        state.groups = run.processes.same(regroup(run.recipe, state, run.images))


def _step(run: Run, gradient: Gradient) -> _Done:
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


def _check_network(run: Run, state: State, done: _Done) -> None:
    """Raise TrainingDiverged if the step that was just taken made the weights useless.

    The next step's loss would tell; the last step has none, and a probe needs them now.
    """
    # A copy is never a compiled network, which would be compiled anew for evaluation.
    encoder = copy.deepcopy(state.final().encoder)
    features = embed_some(encoder, run.images, done.found.indices)
    if run.processes.any(not np.isfinite(features).all()):
        raise _diverged(run, done.found, state.step, done.grad_norm, stepped=True)


def _diverged(
    run: Run, found: Found, step: int, grad_norm: float, *, stepped: bool = False
) -> TrainingDiverged:
    """The error of every process; the others wait until the first has written the batch."""
    where, images, indices = run.folder.path, run.images, found.indices
    error = partial(
        diverged, where, images, indices, step, found.loss, grad_norm, stepped=stepped
    )
    return run.processes.first(partial(error, writes=True), partial(error, writes=False))


def _loss(run: Run, state: State, number: int) -> Found:
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


def _finish(run: Run, state: State, monitor: Monitor) -> RunResult:
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
