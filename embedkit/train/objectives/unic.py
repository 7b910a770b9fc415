"""UNIC: Sariyildiz et al., Universal Classification via Multi-teacher Distillation, 2024."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.encoders.heads import projection_head
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, require, unit

__all__ = ["UNIC"]


class _Projectors(nn.Module):
    """For every teacher a perceptron from features, and the statistics of its embeddings."""

    def __init__(self, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            [
                projection_head(sizes.feature_dim, hidden, dim, norm="layer")
                for dim in sizes.embedding_dims
            ]
        )
        for number, dim in enumerate(sizes.embedding_dims):
            self.register_buffer(f"mean_{number}", torch.zeros(dim))
            self.register_buffer(f"std_{number}", torch.ones(dim))


@objectives.register("unic")
@dataclass(frozen=True)
class UNIC:
    """Learn from several finished models at once, each through a projector of its own.

    The distance to teacher t is one minus the cosine plus the smooth L1 distance,
    ``1 - cos(p_t, y_t) + smooth_l1(p_t, y_t)``, to embeddings y that are standardised per
    teacher, so that none wins by its scale. Teacher dropping: of each image the teacher that is
    worst matched always counts, the others are dropped at random. The paper's projectors also
    reach into the encoder's intermediate blocks (the ladder), which is left out here.

    Attributes:
        teachers: Bundle folders of the finished models.
        hidden: Width of the projectors.
        drop: Probability that a teacher that is not the worst matched is dropped, in [0, 1].
    """

    teachers: tuple[str, ...] = ()
    hidden: int = 256
    drop: float = 0.5

    needs = frozenset({"embeddings"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.hidden >= 1, "a hidden width of at least 1", self.hidden)
        require(0 <= self.drop <= 1, "a probability in [0, 1]", self.drop)

    @property
    def bundles(self) -> tuple[str, ...]:
        """All teachers."""
        return self.teachers

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The projectors."""
        return _Projectors(sizes, self.hidden)

    def prepare(self, module: nn.Module, embeddings: tuple[torch.Tensor, ...]) -> None:
        """Note mean and standard deviation of every teacher's dimensions."""
        for number, known in enumerate(embeddings):
            module.get_buffer(f"mean_{number}").copy_(known.mean(dim=0))
            # A dimension that never changes says nothing, and must not divide by zero.
            module.get_buffer(f"std_{number}").copy_(known.std(dim=0).clamp(min=1e-6))

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean distance over images and the teachers that were not dropped.

        Args:
            batch: One view's features, (1, b, f), b >= 2, the teachers' embeddings, (b, d)
                each, and the projectors.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If the embeddings are missing, there is not one view, or fewer than
                two images.
        """
        check_views(batch.features, views=1, name="unic")
        module = built(batch, _Projectors)
        embeddings = supplied(batch.embeddings, "embeddings")
        distances = torch.stack(
            [
                self._distance(module, number, batch.features[0], known)
                for number, known in enumerate(embeddings)
            ]
        )
        kept = self._kept(distances.detach(), batch.generator)
        return Loss.sum(distance=(distances * kept).sum() / kept.sum())

    def _distance(
        self, module: _Projectors, number: int, features: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        """Of every image to one teacher, (b,)."""
        mean = module.get_buffer(f"mean_{number}").float()
        target = (known.float() - mean) / module.get_buffer(f"std_{number}").float()
        predicted = module.heads[number](features).float()
        cosine = (unit(predicted) * unit(target)).sum(dim=1)
        return (
            1 - cosine + functional.smooth_l1_loss(predicted, target, reduction="none").mean(1)
        )

    def _kept(self, distances: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """(teachers, b) of 0 and 1: which distances count."""
        if len(distances) == 1 or self.drop == 0:
            return torch.ones_like(distances)
        drawn = torch.rand(distances.shape, generator=generator, device=distances.device)
        worst = distances == distances.amax(dim=0)
        return ((drawn >= self.drop) | worst).float()
