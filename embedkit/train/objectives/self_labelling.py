"""SeLa: Asano et al., Self-labelling via Simultaneous Clustering, ICLR 2020."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, require, sinkhorn

__all__ = ["SelfLabelling"]


class _Labeller(nn.Module):
    """Classifiers, the label that each gives to every image, and what the labels come from."""

    labels: torch.Tensor
    remembered: torch.Tensor
    steps: torch.Tensor

    def __init__(self, sizes: Sizes, clusters: int, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(sizes.dim, clusters) for _ in range(heads)])
        # At first balanced labels at random, as in the paper.
        draws = [torch.randperm(sizes.images) % clusters for _ in range(heads)]
        self.register_buffer("labels", torch.stack(draws))
        self.register_buffer("remembered", torch.zeros(sizes.images, sizes.dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


@objectives.register("self_labelling")
@dataclass(frozen=True)
class SelfLabelling:
    """Classify images by labels of the network's own, equally many of each (eq. 3 to 5).

    Labels change by optimal transport: Sinkhorn-Knopp over the predictions for all images, of
    which each image then takes the most likely. The paper runs the network over all images for
    that; here the projections of the last epoch's views stand for them, so that a relabelling
    costs no pass over the data. Labels begin at random, so that few epochs give little:
    docs/leaderboard.md has what 8 and 32 give.

    Attributes:
        clusters: Labels of each head (K).
        heads: Classifiers, each with its own labels; their losses are averaged.
        sharpness: Exponent of the predictions in the transport, above 0 (lambda).
        iterations: Of Sinkhorn-Knopp, at least 1.
        relabel_epochs: Epochs between two relabellings, above 0.
    """

    clusters: int = 128
    heads: int = 4
    sharpness: float = 25.0
    iterations: int = 50
    relabel_epochs: float = 1.0

    needs = frozenset({"projections", "indices"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.clusters >= 2, "at least 2 clusters", self.clusters)
        counts = (self.heads, self.iterations)
        require(min(counts) >= 1, "at least 1 head and iteration", counts)
        positive = (self.sharpness, self.relabel_epochs)
        require(min(positive) > 0, "sharpness and relabel_epochs above 0", positive)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The classifiers and the labels of all images."""
        return _Labeller(sizes, self.clusters, self.heads)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy of both views over the heads.

        Args:
            batch: Two views, (2, b, d), b >= 2, the images' indices, and the module.

        Returns:
            At least 0; ``log(clusters)`` at chance.

        Raises:
            InvalidInput: If the indices are missing, there are not two views, or fewer than two
                images.
        """
        check_views(batch.projections, views=2, name="self_labelling")
        module = built(batch, _Labeller)
        indices = supplied(batch.indices, "indices")
        module.remembered[indices] = (
            batch.projections.detach().float().mean(dim=0).to(module.remembered.dtype)
        )
        module.steps += 1
        epoch = -(-module.labels.shape[1] // len(indices))
        if int(module.steps) % max(1, round(self.relabel_epochs * epoch)) == 0:
            self._relabel(module)
        losses = []
        for head, labels in zip(module.heads, module.labels, strict=True):
            logits = head(batch.projections.flatten(0, 1)).float()
            losses.append(functional.cross_entropy(logits, labels[indices].repeat(2)))
        return Loss.sum(entropy=torch.stack(losses).mean())

    @torch.no_grad()
    def _relabel(self, module: _Labeller) -> None:
        """Section 3.2: transport predictions to equally full clusters, and take the largest."""
        for head, labels in zip(module.heads, module.labels, strict=True):
            log_probability = torch.log_softmax(head(module.remembered).float(), dim=1)
            transported = sinkhorn(self.sharpness * log_probability, self.iterations)
            labels.copy_(transported.argmax(dim=1))
