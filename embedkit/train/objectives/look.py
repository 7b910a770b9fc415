"""LOOK: Feng et al., Rethinking Supervised Pre-training for Better Transferring, ICLR 2022."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    Queue,
    built,
    check_views,
    exact_product,
    require,
    rising_momentum,
    unit,
)

__all__ = ["LOOK"]


class _Neighbours(nn.Module):
    """Earlier projections by the teacher and their labels; -1 where there is none yet."""

    labels: torch.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.queue = Queue(size, dim)
        self.register_buffer("labels", torch.full((size,), -1))

    @torch.no_grad()
    def push(self, vectors: torch.Tensor, labels: torch.Tensor) -> None:
        """Put vectors and their labels in the place of the oldest."""
        size = len(self.labels)
        newest = labels[-size:]
        places = (self.queue.cursor + torch.arange(len(newest), device=labels.device)) % size
        self.labels[places] = newest
        self.queue.push(vectors)


@objectives.register("look")
@dataclass(frozen=True)
class LOOK:
    """Share the label with most of the nearest other images, not with all of the class.

    The loss is the error of a weighted nearest-neighbour classifier that leaves the image
    itself out: ``-log (S_same / S_all)``, where S_all sums ``exp(c_ij / T)`` over the k nearest
    j and S_same over those of the image's class. Its neighbours are earlier images of the
    averaged network, so a class may form several groups. The nearest image of the class
    always counts among the neighbours: without it an image among strangers would have nothing
    to be drawn to.

    Attributes:
        neighbours: How many are looked at, at least 1 (k).
        queue: How many images are remembered.
        temperature: Divides the cosines; above 0.
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1];
            it rises to 1 along a cosine.
    """

    neighbours: int = 100
    queue: int = 4096
    temperature: float = 0.1
    momentum: float = 0.99

    needs = frozenset({"projections", "labels", "teacher"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.neighbours >= 1, "at least 1 neighbour", self.neighbours)
        require(self.queue >= 1, "a queue of at least 1", self.queue)
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The remembered images."""
        return _Neighbours(self.queue, sizes.dim)

    def teacher_momentum(self, progress: float) -> float:
        """BYOL's schedule."""
        return rising_momentum(self.momentum, progress)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean negative log-probability of the label among the neighbours.

        Args:
            batch: One view of student and teacher, (1, b, d), b >= 2, labels, and the memory.

        Returns:
            At least 0. An image without any other of its class counts 0.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.projections, views=1, name="look")
        module = built(batch, _Neighbours)
        labels = supplied(batch.labels, "labels")
        keys = unit(supplied(batch.teacher, "teacher")[0]).detach()
        known = torch.cat([keys, module.queue.read()])
        known_labels = torch.cat([labels, module.labels])
        module.push(keys, labels)
        logits = exact_product(unit(batch.projections[0]), known) / self.temperature
        # Leave one out: the batch's own keys come first, so itself is on the diagonal.
        itself = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
        absent = (known_labels < 0) | itself
        logits = logits.masked_fill(absent, float("-inf"))
        same = (labels.unsqueeze(1) == known_labels) & ~absent
        chosen = self._nearest(logits.detach(), same)
        everyone = logits.masked_fill(~chosen, float("-inf")).logsumexp(dim=1)
        has_any = (chosen & same).any(dim=1)
        # A row without any of its class is left out before the sum, which would be NaN.
        kin = logits.masked_fill(~(chosen & same), float("-inf"))[has_any].logsumexp(dim=1)
        return Loss.sum(neighbours=(everyone[has_any] - kin).sum() / len(labels))

    def _nearest(self, logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        """(n, m) bool: the nearest, and the nearest of the same class."""
        count = min(self.neighbours, logits.shape[1] - 1)
        chosen = torch.zeros_like(same).scatter_(1, logits.topk(count).indices, True)
        nearest = logits.masked_fill(~same, float("-inf")).argmax(dim=1, keepdim=True)
        chosen.scatter_(1, nearest, True)
        return chosen & torch.isfinite(logits)
