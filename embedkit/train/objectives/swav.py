"""SwAV: Caron et al., Unsupervised Learning by Contrasting Cluster Assignments, 2020."""

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
    sinkhorn,
    soft_cross_entropy,
    unit,
)

__all__ = ["SwAV"]


class _Prototypes(nn.Module):
    """Directions that images are assigned to, and earlier projections to assign along."""

    def __init__(self, dim: int, prototypes: int, queue: int) -> None:
        super().__init__()
        # Short vectors: steps of the usual size turn long ones too little to learn anything.
        self.weight = nn.Parameter(unit(torch.randn(prototypes, dim)))
        self.queues = nn.ModuleList([Queue(queue, dim) for _ in range(2 if queue else 0)])

    def forward(self, projections: torch.Tensor) -> torch.Tensor:
        """Cosines with every prototype, (n, k) float32."""
        return exact_product(unit(projections), unit(self.weight))


@objectives.register("swav")
@dataclass(frozen=True)
class SwAV:
    """Predict the cluster of one view from the other, clusters being equally full (eq. 1 to 5).

    A view's soft assignment (its code) is found by Sinkhorn-Knopp over the batch, without
    gradient. The other whole view and all small crops predict it.

    Attributes:
        prototypes: Clusters (K).
        temperature: Of the predictions, above 0 (tau).
        epsilon: Entropy of the codes, above 0; lower is harder.
        iterations: Of Sinkhorn-Knopp, at least 1.
        queue: Earlier projections of each view that are assigned along, for batches with fewer
            images than prototypes; 0 for none.
        queue_from: Share of the run after which they are used: at first they are noise.
    """

    prototypes: int = 64
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    queue: int = 0
    queue_from: float = 0.2

    needs = frozenset({"projections", "local"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        positive = (self.temperature, self.epsilon)
        require(min(positive) > 0, "temperature and epsilon above 0", positive)
        require(self.prototypes >= 2, "at least 2 prototypes", self.prototypes)
        require(self.iterations >= 1, "at least 1 iteration", self.iterations)
        require(self.queue >= 0, "a queue of at least 0", self.queue)
        require(0 <= self.queue_from <= 1, "queue_from in [0, 1]", self.queue_from)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The prototypes, and a queue for each view."""
        return _Prototypes(sizes.dim, self.prototypes, self.queue)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy over pairs of a code and another view.

        Args:
            batch: Two views, (2, b, d), b >= 2, small crops (l, b, d), and the prototypes.

        Returns:
            At least 0; ``log(k)`` when nothing is told apart.

        Raises:
            InvalidInput: If prototypes or crops are missing, there are not two views, or fewer
                than two images.
        """
        check_views(batch.projections, views=2, name="swav")
        module = built(batch, _Prototypes)
        logits = [module(view) / self.temperature for view in batch.projections]
        local = supplied(batch.local, "local")
        small = [module(view) / self.temperature for view in local]
        losses = []
        for view in (0, 1):
            code = self._code(module, batch, view)
            others = [logits[1 - view], *small]
            losses += [soft_cross_entropy(other, code).mean() for other in others]
        return Loss.sum(prediction=torch.stack(losses).mean())

    @torch.no_grad()
    def _code(self, module: _Prototypes, batch: Batch, view: int) -> torch.Tensor:
        """Equations 3 to 5 for one view, (b, k); its projections then join the queue."""
        z = batch.projections[view].detach()
        together = unit(z)
        if self.queue:
            queue = module.queues[view]
            if isinstance(queue, Queue):
                if batch.progress >= self.queue_from:
                    together = torch.cat([together, queue.read()])
                queue.push(unit(z))
        return sinkhorn(module(together) / self.epsilon, self.iterations)[: len(z)]
