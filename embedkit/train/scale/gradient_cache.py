"""Gradient caching: large contrastive batches in the memory of small ones.

Gao et al. (2021), Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup: the
loss needs all embeddings of a batch at once, but the network can be run on a few images at a
time. Run it once without a graph, take the loss's gradient in the embeddings (section 3.2,
step 2, the cache), then run each part again with its graph and go on backwards from there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch

from embedkit.errors import InvalidInput
from embedkit.train.learner import Network, Part, Viewed
from embedkit.train.objective import Objective
from embedkit.train.recipe import Recipe

__all__ = ["GradientCache", "check_parts"]


def check_parts(recipe: Recipe, objective: Objective, processes: int) -> None:
    """Raise InvalidInput if the projection head's batch norm would see one image alone.

    Args:
        recipe: Says how many images the network is run on at a time.
        objective: May have no use for the head.
        processes: That share every batch, and whose batch norms see each other's images.
    """
    count, head = recipe.run.gradient_cache, recipe.projection
    batch_size = recipe.schedule.batch_size
    has_norm = head.norm == "batch" and head.layers > 1 and "projections" in objective.needs
    share = batch_size // processes
    if count and has_norm and share // -(-share // count) * processes < 2:
        raise InvalidInput(
            "expected parts of at least 2 images, over which the projection head's batch norm "
            f"takes its statistics, got one of 1 with schedule.batch_size={batch_size} and "
            f"run.gradient_cache={count}; raise run.gradient_cache or set projection.norm=layer"
        )


@dataclass
class _Pass:
    """One call of the network: how to run each part again, and what came of all of them."""

    parts: list[Callable[[], Viewed]]
    sizes: list[int]
    viewed: Viewed


@dataclass
class GradientCache:
    """Runs a network on a few images at a time; ``backward`` finishes what the loss began.

    Gradients are those of the whole batch where every image is encoded on its own. Batch norm
    takes its statistics over the images of a part, in both passes the same.

    Attributes:
        images: Of one part, at least 1.
        buffers: Those of the network; the second pass leaves them as they were.
    """

    images: int
    buffers: list[torch.Tensor]
    _passes: list[_Pass] = field(default_factory=list)

    def __call__(self, network: Network, part: Part) -> Viewed:
        """Run the network on all images; without gradients nothing is remembered."""
        remembers = torch.is_grad_enabled()
        runs = [partial(network, piece) for piece in part.split(self.images)]
        replays, outputs = [], []
        for run in runs:
            replays.append(_replay(run, part.pixels.device))
            with torch.no_grad():
                outputs.append(run())
        viewed = _joined(outputs)
        if not remembers:
            return viewed
        leaves = viewed.each(torch.Tensor.requires_grad_)
        sizes = [output.features.shape[1] for output in outputs]
        self._passes.append(_Pass(replays, sizes, leaves))
        return leaves

    def backward(self) -> None:
        """Add the gradients of all weights, from those of the embeddings."""
        before = [buffer.clone() for buffer in self.buffers]
        for done in self._passes:
            gradients = [
                None if x is None or x.grad is None else torch.split(x.grad, done.sizes, dim=1)
                for x in done.viewed
            ]
            for index, run in enumerate(done.parts):
                _backward(run(), [None if g is None else g[index] for g in gradients])
        self._passes.clear()
        with torch.no_grad():
            for buffer, value in zip(self.buffers, before, strict=True):
                buffer.copy_(value)


def _replay(run: Callable[[], Viewed], device: torch.device) -> Callable[[], Viewed]:
    """Run again as it runs first: under the same autocast, from the same random states."""
    generator, autocast = torch.get_rng_state(), _autocast()
    # Dropout on a GPU draws from that GPU's own generator.
    gpus = [device] if device.type == "cuda" else []
    states = [torch.cuda.get_rng_state(gpu) for gpu in gpus]

    def again() -> Viewed:
        with torch.random.fork_rng(devices=gpus), autocast(), torch.enable_grad():
            torch.set_rng_state(generator)
            for gpu, state in zip(gpus, states, strict=True):
                torch.cuda.set_rng_state(state, gpu)
            return run()

    return again


def _autocast() -> Callable[[], AbstractContextManager[object]]:
    """What makes the autocast that is on now."""
    kind = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return partial(torch.autocast, kind, dtype, enabled=enabled)


def _joined(outputs: list[Viewed]) -> Viewed:
    tokens = [output.tokens for output in outputs if output.tokens is not None]
    return Viewed(
        torch.cat([output.features for output in outputs], dim=1),
        torch.cat([output.projections for output in outputs], dim=1),
        torch.cat(tokens, dim=1) if tokens else None,
    )


def _backward(viewed: Viewed, gradients: list[torch.Tensor | None]) -> None:
    pairs = [
        (x, g)
        for x, g in zip(viewed, gradients, strict=True)
        if x is not None and g is not None and x.requires_grad
    ]
    if pairs:
        tensors, given = zip(*pairs, strict=True)
        torch.autograd.backward(tensors, given)
