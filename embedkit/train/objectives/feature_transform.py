"""FT: Zhu et al., Improving Contrastive Learning by Feature Transformation, ICCV 2021."""

from dataclasses import dataclass

import torch
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

__all__ = ["FeatureTransform"]


@objectives.register("feature_transform")
@dataclass(frozen=True)
class FeatureTransform:
    """MoCo with positives pushed apart and negatives mixed (section 4).

    Query and key of a pair are extrapolated away from one another with a factor in [1, 2] per
    dimension, which lowers their cosine; each key of the queue is interpolated with another
    one. All factors are drawn from Beta(2, 2), a median of three uniform numbers; the paper's
    best for negatives is Beta(1.6, 1.6). Mixed vectors are not brought to length 1 again.

    Attributes:
        temperature: Divides the cosines; above 0.
        queue: Keys that are remembered, at least 1.
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1]; it
            rises to 1.
        extrapolate: Whether positives are pushed apart.
        interpolate: Whether negatives are mixed.
        warmup: Share of the run before either starts, in [0, 1].
    """

    temperature: float = 0.2
    queue: int = 4096
    momentum: float = 0.99
    extrapolate: bool = True
    interpolate: bool = True
    warmup: float = 0.0

    needs = frozenset({"projections", "teacher"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.queue >= 1, "a queue of at least 1", self.queue)
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)
        require(0 <= self.warmup <= 1, "a warmup in [0, 1]", self.warmup)

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
            At least 0.

        Raises:
            InvalidInput: If teacher or queue is missing, there are not two views, or fewer than
                two images.
        """
        queries, keys, queue = queued_pairs(batch, "feature_transform")
        negatives, positives = queue.read(), keys
        if batch.progress >= self.warmup:
            if self.extrapolate:
                away = 1 + _beta(queries, batch.generator)
                positives = torch.lerp(queries, keys, away)
                queries = torch.lerp(keys, queries, away)
            if self.interpolate:
                order = torch.randperm(
                    len(negatives), generator=batch.generator, device=negatives.device
                )
                share = _beta(negatives, batch.generator)
                negatives = torch.lerp(negatives[order], negatives, share)
        logits = positive_first(queries, positives, negatives, self.temperature)
        queue.push(keys)
        return Loss.sum(contrast=first_found(logits))


def _beta(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Beta(2, 2) numbers of a tensor's shape: the middle one of three uniform numbers."""
    uniform = torch.rand(3, *like.shape, generator=generator, device=like.device)
    return uniform.median(dim=0).values
