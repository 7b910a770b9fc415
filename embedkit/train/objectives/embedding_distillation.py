"""Distillation of embeddings: Romero et al. (FitNets, 2015), Tung and Mori (ICCV 2019)."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from embedkit.encoders.heads import projection_head
from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views, exact_product, require, unit

__all__ = ["EmbeddingDistillation"]


@objectives.register("embedding_distillation")
@dataclass(frozen=True)
class EmbeddingDistillation:
    """Match what a finished model says of each image: its embedding, and its neighbours.

    The teacher embeds every image as it is once, before the first step; the student sees it
    augmented. The cosine term is FitNets' regression of unit vectors; the similarity term
    (Tung and Mori, eq. 1 to 4) compares the cosines between all images of the batch, which
    also binds the features themselves, whatever head is between.

    Attributes:
        teacher: Bundle folder of the finished model.
        head: From features to the teacher's dimensions: ``perceptron`` of two layers,
            ``linear``, or ``none``, which needs as many dimensions as the teacher has and
            gives embeddings that may stand in for the teacher's.
        hidden: Width of the perceptron.
        cosine: Weight of the distance to the teacher's embedding, at least 0.
        similarity: Weight of the difference of cosines between images, at least 0.
    """

    teacher: str = ""
    head: Literal["perceptron", "linear", "none"] = "perceptron"
    hidden: int = 256
    cosine: float = 1.0
    similarity: float = 1.0

    needs = frozenset({"embeddings"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.hidden >= 1, "a hidden width of at least 1", self.hidden)
        weights = (self.cosine, self.similarity)
        require(min(weights) >= 0, "weights of at least 0", weights)
        require(max(weights) > 0, "one weight above 0", weights)

    @property
    def bundles(self) -> tuple[str, ...]:
        """The one teacher."""
        return (self.teacher,)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The head.

        Raises:
            InvalidInput: If there is to be none and the dimensions differ.
        """
        dim, wanted = sizes.feature_dim, sizes.embedding_dims[0]
        if self.head == "none":
            if dim != wanted:
                raise InvalidInput(
                    f"expected an encoder with the teacher's {wanted} dimensions, got {dim}; "
                    "use objective.head = 'linear'"
                )
            return nn.Identity()
        return projection_head(
            dim, self.hidden, wanted, layers=1 if self.head == "linear" else 2
        )

    def __call__(self, batch: Batch) -> Loss:
        """Return the weighted distance of embeddings and of similarities.

        Args:
            batch: One view's features, (1, b, f), b >= 2, the teacher's embeddings (b, d), and
                the head.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If the embeddings are missing, there is not one view, or fewer than
                two images.
        """
        check_views(batch.features, views=1, name="embedding_distillation")
        head = supplied(batch.module, "module")
        target = unit(supplied(batch.embeddings, "embeddings")[0])
        features = batch.features[0]
        distance = 2 - 2 * (unit(head(features)) * target).sum(dim=1)
        between = exact_product(unit(features), unit(features)) - exact_product(target, target)
        # The diagonal is 1 in both; the mean is over pairs of different images.
        pairs = between.square().sum() / (len(target) * (len(target) - 1))
        return Loss.sum(
            cosine=self.cosine * distance.mean(), similarity=self.similarity * pairs
        )
