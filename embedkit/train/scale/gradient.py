"""Gradient: that of one step, in as many passes as the recipe asks for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch

from embedkit.train.batch import ImageIndices, Loss, Projections
from embedkit.train.learner import State
from embedkit.train.optim import perturbed_gradient
from embedkit.train.recipe import Recipe
from embedkit.train.scale.gradient_cache import GradientCache
from embedkit.train.scale.processes import Processes

__all__ = ["Found", "Gradient"]


class Found(NamedTuple):
    """The loss of one batch, and what it was taken of.

    Attributes:
        loss: With gradient until the step's gradient is taken.
        features: Of its views, (v, b, f).
        indices: Of its images, (b,).
    """

    loss: Loss
    features: Projections
    indices: ImageIndices


@dataclass(frozen=True)
class Gradient:
    """Leaves the gradient of a step in the weights.

    Attributes:
        recipe: Says how: accumulated, cached, at perturbed weights.
        state: Whose weights.
        processes: That share the work.
        cache: Runs the network on a few images at a time, or None.
    """

    recipe: Recipe
    state: State
    processes: Processes
    cache: GradientCache | None

    @classmethod
    def prepare(cls, recipe: Recipe, state: State, processes: Processes) -> "Gradient":
        """Let the networks of ``state`` run in the ways that the recipe asks for."""
        networks = [n for n in (state.learner, state.teacher) if n is not None]
        cache = None
        if recipe.run.gradient_cache:
            cache = GradientCache(recipe.run.gradient_cache, list(state.learner.buffers()))
            for network in networks:
                network.way = cache
        processes.attach(state)
        if recipe.run.compile:
            for network in networks:
                network.encoder.net.compile()
        return cls(recipe, state, processes, cache)

    def take(self, loss: Callable[[int], Found]) -> Found:
        """Leave the gradient of one step in ``grad`` of every weight.

        Args:
            loss: Computes the loss of one of the step's batches, by its 0-based number; equal
                numbers give the same views and the same random draws.

        Returns:
            The first batch whose loss or gradient is not finite, or the last one.
        """
        settings = self.recipe.optimiser
        if settings.perturbation == "none":
            return self._pass(loss)[0]
        # Queues and running statistics move once per step, by what the weights really gave.
        before = self._buffers()
        found, is_bad = self._pass(loss)
        after = self._buffers()

        def again() -> None:
            nonlocal found, is_bad
            self._set_buffers(before)
            perturbed, is_worse = self._pass(loss)
            if is_worse and not is_bad:
                found, is_bad = perturbed, True

        weights = [p for p in self.state.learner.parameters() if p.requires_grad]
        perturbed_gradient(
            weights,
            again,
            radius=settings.perturbation_radius,
            steps=settings.perturbation_steps,
        )
        self._set_buffers(after)
        return found

    def _pass(self, loss: Callable[[int], Found]) -> tuple[Found, bool]:
        """The gradient at the weights as they are, averaged over the step's batches.

        Returns:
            The first of several batches that is not finite and True, or the last and False.
        """
        count, bad = self.recipe.schedule.accumulate, None
        self.state.optimiser.zero_grad(set_to_none=True)
        for number in range(count):
            found = loss(number)
            (found.loss.total / count).backward()  # type: ignore[no-untyped-call]
            if self.cache is not None:
                self.cache.backward()
            if bad is None and count > 1 and not self._is_finite(found.loss):
                bad = found
        self.processes.add_gradients(self.state.learner)
        return bad or found, bad is not None

    def _is_finite(self, loss: Loss) -> bool:
        """Whether a batch's loss, and the gradient so far, are finite on every process."""
        weights = self.state.learner.parameters()
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        total = float(loss.total.detach()) + float(norm)
        return not self.processes.any(not math.isfinite(total))

    def _memory(self) -> list[torch.Tensor]:
        """Every buffer that a forward pass may change."""
        modules = [m for m in (self.state.learner, self.state.teacher) if m is not None]
        return list(chain.from_iterable(module.buffers() for module in modules))

    def _buffers(self) -> list[torch.Tensor]:
        return [buffer.clone() for buffer in self._memory()]

    @torch.no_grad()
    def _set_buffers(self, values: list[torch.Tensor]) -> None:
        for buffer, value in zip(self._memory(), values, strict=True):
            buffer.copy_(value)
