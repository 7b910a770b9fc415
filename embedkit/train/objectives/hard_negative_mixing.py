"""MoCHi: Kalantidis et al., Hard Negative Mixing for Contrastive Learning, NeurIPS 2020."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import (
    Queue,
    exact_product,
    first_found,
    positive_first,
    queued_pairs,
    require,
    rising_momentum,
    unit,
)

__all__ = ["HardNegativeMixing"]


@objectives.register("hard_negative_mixing")
@dataclass(frozen=True)
class HardNegativeMixing:
    """MoCo with further negatives, mixed from the hardest ones of each query (eq. 3 and 4).

    Attributes:
        temperature: Divides the cosines; above 0.
        queue: Keys that are remembered, at least 2.
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1]; it
            rises to 1.
        hardest: Nearest keys of each query that are mixed (N), at least 2.
        mixed: Negatives mixed of two of them (s).
        mixed_with_query: Negatives mixed of one of them and the query, with less than half of
            the query (s').
        warmup: Share of the run before mixing starts, in [0, 1].
    """

    temperature: float = 0.2
    queue: int = 4096
    momentum: float = 0.99
    hardest: int = 256
    mixed: int = 128
    mixed_with_query: int = 64
    warmup: float = 0.1

    needs = frozenset({"projections", "teacher"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.queue >= 2, "a queue of at least 2", self.queue)
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)
        require(self.hardest >= 2, "hardest of at least 2", self.hardest)
        counts = (self.mixed, self.mixed_with_query)
        require(min(counts) >= 0, "mixed and mixed_with_query of at least 0", counts)
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
        queries, keys, queue = queued_pairs(batch, "hard_negative_mixing")
        negatives = queue.read()
        logits = positive_first(queries, keys, negatives, self.temperature)
        if batch.progress >= self.warmup:
            mixed = self._mix(queries.detach(), negatives, batch.generator)
            # As ``exact_product``: autocast would compute these logits in bfloat16.
            with torch.autocast(queries.device.type, enabled=False):
                harder = torch.einsum("nd,nsd->ns", queries, mixed)
            logits = torch.cat([logits, harder / self.temperature], dim=1)
        queue.push(keys)
        return Loss.sum(contrast=first_found(logits))

    @torch.no_grad()
    def _mix(
        self, queries: torch.Tensor, negatives: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Synthetic negatives of each query, (n, mixed + mixed_with_query, d) of length 1."""
        n, device = len(queries), queries.device
        count = min(self.hardest, len(negatives))
        hardest = exact_product(queries, negatives).topk(count, dim=1).indices

        def draw(number: int) -> torch.Tensor:
            picked = torch.randint(count, (n, number), generator=generator, device=device)
            return negatives[hardest.gather(1, picked)]

        def share(number: int, below: float) -> torch.Tensor:
            return torch.rand(n, number, 1, generator=generator, device=device) * below

        first, second = draw(self.mixed), draw(self.mixed)
        pairs = torch.lerp(second, first, share(self.mixed, 1.0))
        near = torch.lerp(
            draw(self.mixed_with_query), queries[:, None], share(self.mixed_with_query, 0.5)
        )
        return unit(torch.cat([pairs, near], dim=1))
