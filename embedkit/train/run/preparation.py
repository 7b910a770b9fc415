"""What a run needs before its first step: data, supply, folder and networks that fit."""

from dataclasses import dataclass
from pathlib import Path

import torch

from embedkit.errors import InvalidInput, MissingDependency
from embedkit.train.images import TrainingImages, load_images
from embedkit.train.learner import State, build_state
from embedkit.train.objective import Objective, build_objective
from embedkit.train.recipe import Recipe
from embedkit.train.run.bundles import LoadBundle, embed_all
from embedkit.train.run.folder import RunFolder, RunResult
from embedkit.train.run.selection import select_images
from embedkit.train.scale.gradient_cache import check_parts
from embedkit.train.scale.processes import Processes
from embedkit.train.supply import Supply, augment_of

__all__ = ["Run", "open_folder", "prepare", "state_of"]


@dataclass(frozen=True)
class Run:
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


def prepare(
    recipe: Recipe,
    out: Path,
    device: str,
    load_bundle: LoadBundle | None,
    processes: Processes,
) -> Run:
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
    return Run(recipe, folder, objective, images, supply, where, processes, per_epoch, steps)


def state_of(run: Run) -> State:
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


def open_folder(run: Run, resume: bool) -> RunResult | None:
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
