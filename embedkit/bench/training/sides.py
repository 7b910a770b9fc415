"""What is compared: the training loop as it is, and the least that any loop must do."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from embedkit.errors import InvalidInput
from embedkit.train.images import load_images, seed_of
from embedkit.train.learner import build_state
from embedkit.train.loop import train
from embedkit.train.monitor import Progress
from embedkit.train.objective import build_objective
from embedkit.train.recipe import Recipe
from embedkit.train.run.memory import kept_memory
from embedkit.train.scale.precision import autocast
from embedkit.train.supply import Supply, augment_of

__all__ = ["BareStep", "loop_rate"]

_WARM_STEPS = 3


def loop_rate(recipe: Recipe, epochs: int, device: str) -> float:
    """Images per second of ``embedkit train`` with this recipe; all views count as one.

    The clock runs from the first line of the metrics to the last, so that loading the data and
    the first slow steps are left out, and drawing, measuring, logging and all checkpoints but
    the last are counted.

    Args:
        recipe: What is trained.
        epochs: How long.
        device: ``cpu``, ``cuda`` or ``auto``.

    Raises:
        InvalidInput: If there are not at least two lines, or the recipe is wrong.
    """
    marks: list[tuple[int, float]] = []

    def mark(progress: Progress) -> None:
        marks.append((progress.step, time.perf_counter()))

    shortened = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs, max_steps=0))
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        train(shortened, Path(folder) / "run", report=mark, device=device)
    (first, began), (last, ended) = marks[0], marks[-1]
    if first == last:
        raise InvalidInput(
            f"expected more than run.log_steps={recipe.run.log_steps} steps to measure, got "
            f"{last}; raise --epochs, or set run.log_steps=1"
        )
    return (last - first) * recipe.schedule.batch_size / (ended - began)


class BareStep:
    """Forward, backward and optimiser step over one batch of views that is drawn beforehand.

    Network, objective, optimiser, precision, memory format and allocator are those of our loop;
    there is no drawing of views, no check, no average, no record.

    Args:
        recipe: What is trained.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.objective = build_objective(recipe.objective.name, recipe.objective.arguments)
        images = load_images(recipe, self.objective, device)
        with torch.random.fork_rng():
            self.state = build_state(recipe, self.objective, images, device)
        augment = augment_of(recipe, self.objective, images.spec)
        self.supply = Supply(self.objective, images, augment)
        self.indices = images.indices(
            0, batch_size=recipe.schedule.batch_size, seed=recipe.seed
        )
        self.generator = torch.Generator(device).manual_seed(seed_of(recipe.seed, "step", 0))
        self.drawn = self.supply.draw(self.state.learner, self.indices, self.generator)

    def rate(self, steps: int) -> float:
        """Images per second over some steps, after a few that are not counted."""
        with kept_memory():
            self._steps(_WARM_STEPS)
            began = time.perf_counter()
            self._steps(steps)
            return steps * self.recipe.schedule.batch_size / (time.perf_counter() - began)

    def _steps(self, steps: int) -> None:
        optimiser = self.state.optimiser
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with autocast(self.recipe.run.precision, self.device):
                batch = self.supply.batch(
                    self.state, self.drawn, self.indices, self.generator, 0.5
                )
                loss = self.objective(batch)
            loss.total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
