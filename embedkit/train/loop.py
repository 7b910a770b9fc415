"""The training loop: one run, from recipe to weights, in the order in which it happens."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from embedkit.errors import Cancelled, InvalidInput, MissingDependency
from embedkit.perturb.augmentation import Augmentation, build_augmentation, preset, views
from embedkit.train.images import TrainingImages, load_images, seed_of
from embedkit.train.learner import Learner, State, Viewed, build_state
from embedkit.train.monitor import Measures, Monitor, Report
from embedkit.train.objective import Batch, Loss, Objective, Taught, build_objective
from embedkit.train.optim import average, learning_rate, set_learning_rate
from embedkit.train.recipe import Recipe
from embedkit.train.run.divergence import diverged
from embedkit.train.run.folder import RunFolder, RunResult, versions
from embedkit.train.run.interrupt import interruptible

__all__ = ["train"]


@dataclass(frozen=True)
class _Run:
    """What stays the same from step to step."""

    recipe: Recipe
    folder: RunFolder
    objective: Objective
    images: TrainingImages
    augment: Augmentation
    device: torch.device
    steps_per_epoch: int
    steps: int


@dataclass(frozen=True)
class _Done:
    """What one step leaves to be written down."""

    loss: Loss
    features: torch.Tensor
    grad_norm: float
    lr: float


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    device: str = "auto",
) -> RunResult:
    """Train an encoder.

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

    Returns:
        What the run says of itself.

    Raises:
        AlreadyExists: If there is a run in ``out`` and ``resume`` is not set.
        InvalidInput: If recipe and data do not fit; says what to change.
        TrainingDiverged: If the loss is not finite; names the step and the file of its batch.
        Cancelled: If interrupted by SIGINT or SIGTERM; a checkpoint was written.
    """
    run = _prepare(recipe, Path(out), resume, device)
    finished = run.folder.result()
    if finished is not None:
        return finished
    cuda = [run.device.index or 0] if run.device.type == "cuda" else []
    # Dropout draws from the global generator: it is seeded here, and given back as it was.
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed_of(recipe.seed, "global", 0))
        state = build_state(recipe, run.objective, run.images, run.device)
        monitor = _monitor(run, state, report)
        with interruptible() as is_interrupted:
            _steps(run, state, monitor, is_interrupted)
    return _finish(run, state, monitor)


# ----------------------------------------------------------------------------- before the loop


def _prepare(recipe: Recipe, out: Path, resume: bool, device: str) -> _Run:
    """Check everything that can be wrong before the folder is touched."""
    objective = build_objective(recipe.objective.name, recipe.objective.arguments)
    if "teacher" in objective.needs and not isinstance(objective, Taught):
        raise InvalidInput(
            f"expected {recipe.objective.name!r}, which needs a teacher, to have "
            "teacher_momentum(progress), got none"
        )
    where = _device(device)
    images = load_images(recipe, objective, where)
    augment = _augmentation(recipe, images)
    per_epoch = len(images) // recipe.schedule.batch_size
    steps = per_epoch * recipe.schedule.epochs
    if recipe.schedule.max_steps:
        steps = min(steps, recipe.schedule.max_steps)
    folder = RunFolder.open(out, recipe, resume=resume)
    return _Run(recipe, folder, objective, images, augment, where, per_epoch, steps)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"expected the device auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingDependency(
            "expected a CUDA device, got none that torch can see; use --device cpu"
        )
    is_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if is_gpu else "cpu")


def _augmentation(recipe: Recipe, images: TrainingImages) -> Augmentation:
    steps = recipe.augmentation
    if steps == "none":
        return build_augmentation([])
    if isinstance(steps, str):
        spec = images.spec
        return build_augmentation(preset(steps, spec.channels, min(spec.height, spec.width)))
    return build_augmentation(steps)


def _monitor(run: _Run, state: State, report: Report | None) -> Monitor:
    """Restore the checkpoint if there is one, and start the clock where it ended."""
    warnings = run.folder.restore(state, run.images)
    batch_size = run.recipe.schedule.batch_size
    monitor = Monitor(run.folder.metrics, run.steps, run.steps_per_epoch, batch_size, report)
    monitor.seconds, monitor.warnings = state.seconds, warnings
    monitor.settled = _warmup(run)
    monitor.start(state.step)
    return monitor


def _warmup(run: _Run) -> int:
    """Steps until the learning rate is at its peak."""
    return min(round(run.recipe.schedule.warmup_epochs * run.steps_per_epoch), run.steps)


# ------------------------------------------------------------------------------------ the loop


def _steps(
    run: _Run, state: State, monitor: Monitor, is_interrupted: Callable[[], bool]
) -> None:
    """Take all steps that are left."""
    settings = run.recipe.run
    checkpoint_steps = settings.checkpoint_steps or run.steps_per_epoch
    while state.step < run.steps:
        done = _step(run, state)
        is_last = state.step == run.steps
        if state.step % settings.log_steps == 0 or is_last:
            monitor.record(
                state.step,
                done.loss,
                features=done.features,
                grad_norm=done.grad_norm,
                lr=done.lr,
            )
        stops = is_interrupted() and not is_last
        if state.step % checkpoint_steps == 0 or is_last or stops:
            state.seconds = monitor.elapsed()
            run.folder.save(state, run.images, monitor.warnings)
        if stops:
            raise Cancelled(
                f"interrupted at step {state.step} of {run.steps}; the checkpoint is written, "
                "continue with --resume"
            )


def _step(run: _Run, state: State) -> _Done:
    """One batch: views, loss, gradient, step, averages."""
    recipe, step = run.recipe, state.step
    indices = run.images.indices(step, batch_size=recipe.schedule.batch_size, seed=recipe.seed)
    generator = torch.Generator(run.device).manual_seed(seed_of(recipe.seed, "step", step))
    pixels = _views(run, state.learner, indices, generator)

    loss, features = _loss(run, state, pixels, indices, generator)
    state.optimiser.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    limit = recipe.optimiser.clip_norm or math.inf
    grad_norm = float(torch.nn.utils.clip_grad_norm_(state.learner.parameters(), limit))
    if not math.isfinite(float(loss.total.detach()) + grad_norm):
        raise diverged(run.folder.path, run.images, indices, step, loss, grad_norm)

    lr = learning_rate(
        step,
        total=run.steps,
        warmup=_warmup(run),
        peak=recipe.optimiser.lr,
        final=recipe.schedule.final_lr,
    )
    set_learning_rate(state.optimiser, lr)
    state.optimiser.step()

    if state.teacher is not None and isinstance(run.objective, Taught):
        average(state.teacher, state.learner, run.objective.teacher_momentum(step / run.steps))
    if state.average is not None:
        # The first averages would be mostly initial weights: they follow faster.
        average(state.average, state.learner, min(recipe.run.ema, (1 + step) / (10 + step)))
    state.step += 1
    return _Done(loss, features, grad_norm, lr)


@torch.no_grad()
def _views(
    run: _Run, learner: Learner, indices: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Augmented views of the images at ``indices``, (v, b, c, h, w) in [0, 1]."""
    pixels = learner.encoder.to_unit(run.images.images[indices])
    augmented: torch.Tensor = views(pixels, run.augment, run.objective.views, generator)
    return augmented


def _loss(
    run: _Run,
    state: State,
    pixels: torch.Tensor,
    indices: torch.Tensor,
    generator: torch.Generator,
) -> tuple[Loss, torch.Tensor]:
    """Run the networks and the objective; the features come along, for the monitor."""
    needs = run.objective.needs
    if run.recipe.run.precision == "bf16":
        autocast = torch.autocast(run.device.type, torch.bfloat16)
    else:
        autocast = torch.autocast(run.device.type, enabled=False)
    with autocast:
        student: Viewed = state.learner(pixels)
        teacher = None
        if state.teacher is not None:
            with torch.no_grad():
                teacher = state.teacher(pixels).projections
        labels = run.images.labels
        batch = Batch(
            student.projections,
            student.features,
            module=state.learner.module,
            labels=labels[indices] if labels is not None else None,
            indices=indices if "indices" in needs else None,
            teacher=teacher,
            tokens=student.tokens if "tokens" in needs else None,
            generator=generator,
            progress=state.step / run.steps,
        )
        loss = run.objective(batch)
    return loss, student.features


# ------------------------------------------------------------------------------ after the loop


def _finish(run: _Run, state: State, monitor: Monitor) -> RunResult:
    """Write the weights and what the run says of itself."""
    # Read back, because a run that was killed right here has no step left to measure.
    last = run.folder.last_metrics()
    seconds = round(state.seconds, 3)
    images = state.step * run.recipe.schedule.batch_size
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
        device=f"{run.device.type}, {torch.get_num_threads()} threads",
        versions=versions(),
    )
    return run.folder.finish(state.final(), run.objective, run.images, result)
