"""ASCL: Feng and Patras, Adaptive Soft Contrastive Learning, ICPR 2022."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    Queue,
    built,
    check_views,
    exact_product,
    positive_first,
    require,
    rising_momentum,
    unit,
)

__all__ = ["ASCL"]


@objectives.register("ascl")
@dataclass(frozen=True)
class ASCL:
    """MoCo in which near keys of the queue are positives too, as far as one is sure of them.

    The teacher's key says how the queue is spread around the image: q, a sharpened softmax of
    its cosines. Where q has low entropy, keys get a target of up to that of the positive
    (adaptive relabelling, section III): ``min(1, c * neighbours * q_j)`` with the confidence
    ``c = 1 - entropy(q) / log(queue)``. The paper's teacher sees a weakly augmented view; ours
    sees the other view.

    Attributes:
        temperature: Divides the student's cosines; above 0.
        sharp_temperature: Divides the teacher's cosines (tau'); above 0.
        neighbours: Expected number of further positives (K), at least 0; 0 is MoCo.
        queue: Keys that are remembered, at least 2.
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1]; it
            rises to 1.
    """

    temperature: float = 0.1
    sharp_temperature: float = 0.05
    neighbours: float = 1.0
    queue: int = 4096
    momentum: float = 0.99

    needs = frozenset({"projections", "teacher"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        temperatures = (self.temperature, self.sharp_temperature)
        require(min(temperatures) > 0, "temperatures above 0", temperatures)
        require(self.neighbours >= 0, "neighbours of at least 0", self.neighbours)
        require(self.queue >= 2, "a queue of at least 2", self.queue)
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The queue."""
        return Queue(self.queue, sizes.dim)

    def teacher_momentum(self, progress: float) -> float:
        """Rises from ``momentum`` to 1 along half a cosine."""
        return rising_momentum(self.momentum, progress)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean of both directions, and remember the keys.

        Args:
            batch: Two views of student and teacher, each (2, b, d), b >= 2, and the queue.

        Returns:
            At least 0: the cross entropy with the soft targets.

        Raises:
            InvalidInput: If teacher or queue is missing, there are not two views, or fewer than
                two images.
        """
        check_views(batch.projections, views=2, name="ascl")
        queue = built(batch, Queue)
        keys = unit(supplied(batch.teacher, "teacher").detach()).flip(0).flatten(0, 1)
        queries = unit(batch.projections).flatten(0, 1)
        negatives = queue.read()
        logits = positive_first(queries, keys, negatives, self.temperature)
        targets = self._targets(exact_product(keys, negatives))
        queue.push(keys)
        log_probability = torch.log_softmax(logits, dim=1)
        return Loss.sum(contrast=-(targets * log_probability).sum(dim=1).mean())

    def _targets(self, cosines: torch.Tensor) -> torch.Tensor:
        """Targets of the positive and of each key of the queue, (n, 1 + queue)."""
        log_near = torch.log_softmax(cosines / self.sharp_temperature, dim=1)
        near = log_near.exp()
        entropy = -(near * log_near).sum(dim=1, keepdim=True)
        confidence = 1 - entropy / math.log(cosines.shape[1])
        soft = (confidence * self.neighbours * near).clamp(max=1)
        weights = torch.cat([torch.ones_like(confidence), soft], dim=1)
        return weights / weights.sum(dim=1, keepdim=True)
