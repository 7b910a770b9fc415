"""ClusterFit: Yan et al., Improving Generalization of Visual Representations, CVPR 2020."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, k_means, require

__all__ = ["ClusterFit"]

_SEED = 0
"""Of the first centres: equal embeddings give equal clusters, whatever the run's seed."""


class _Classifier(nn.Module):
    """A linear layer to clusters, and the cluster of every image."""

    labels: torch.Tensor

    def __init__(self, dim: int, clusters: int, images: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, clusters)
        self.register_buffer("labels", torch.zeros(images, dtype=torch.int64))


@objectives.register("cluster_fit")
@dataclass(frozen=True)
class ClusterFit:
    """Classify images by the k-means clusters of a finished model's embeddings (section 3).

    The new encoder learns what is common within clusters, and not the quirks of the task that
    the finished one was trained for.

    Attributes:
        teacher: Bundle folder of the finished model.
        clusters: Of k-means (K); at most as many as images.
        iterations: Of k-means, at least 1.
    """

    teacher: str = ""
    clusters: int = 100
    iterations: int = 50

    needs = frozenset({"indices", "embeddings"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.clusters >= 2, "at least 2 clusters", self.clusters)
        require(self.iterations >= 1, "at least 1 iteration", self.iterations)

    @property
    def bundles(self) -> tuple[str, ...]:
        """The one teacher."""
        return (self.teacher,)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The classifier and room for the clusters."""
        clusters = min(self.clusters, sizes.images)
        return _Classifier(sizes.feature_dim, clusters, sizes.images)

    def prepare(self, module: nn.Module, embeddings: tuple[torch.Tensor, ...]) -> None:
        """Cluster the teacher's embeddings of all images."""
        if isinstance(module, _Classifier):
            clusters = module.linear.out_features
            found = k_means(embeddings[0], clusters, iterations=self.iterations, seed=_SEED)
            module.labels.copy_(found)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean negative log-probability of the images' clusters.

        Args:
            batch: One view's features, (1, b, f), b >= 2, the images' indices, and the module.

        Returns:
            At least 0; ``log(clusters)`` at chance.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="cluster_fit")
        module = built(batch, _Classifier)
        supplied(batch.embeddings, "embeddings")
        labels = module.labels[supplied(batch.indices, "indices")]
        logits = module.linear(batch.features[0]).float()
        return Loss.sum(entropy=functional.cross_entropy(logits, labels))
