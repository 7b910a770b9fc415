"""MoCo: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020."""

from dataclasses import dataclass

from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import (
    Queue,
    first_found,
    positive_first,
    queued_pairs,
    require,
    rising_momentum,
)

__all__ = ["MoCo"]


@objectives.register("moco")
@dataclass(frozen=True)
class MoCo:
    """Tell the teacher's key of the other view from a queue of older keys (eq. 1 and 2).

    Both views are queries and both are keys, which the paper's one-way loss leaves out; the
    loop encodes both anyway.

    Attributes:
        temperature: Divides the cosines; above 0.
        queue: Keys that are remembered, at least 1.
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1]; it
            rises to 1. The paper's 0.999 is for runs of many thousand steps.
    """

    temperature: float = 0.2
    queue: int = 4096
    momentum: float = 0.99

    needs = frozenset({"projections", "teacher"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.queue >= 1, "a queue of at least 1", self.queue)
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
            At least 0; ``log(1 + queue)`` when nothing is told apart.

        Raises:
            InvalidInput: If teacher or queue is missing, there are not two views, or fewer than
                two images.
        """
        queries, keys, queue = queued_pairs(batch, "moco")
        logits = positive_first(queries, keys, queue.read(), self.temperature)
        queue.push(keys)
        return Loss.sum(contrast=first_found(logits))
