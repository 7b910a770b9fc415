"""Cross entropy: plain supervised training with a linear classifier."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views

__all__ = ["CrossEntropy"]


@objectives.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy:
    """Classify each image with a linear layer on the features; the layer is exported.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
    """

    label_smoothing: float = 0.0

    needs = frozenset({"labels"})
    views = 1

    def __post_init__(self) -> None:
        """Check the smoothing."""
        if not 0 <= self.label_smoothing < 1:
            raise InvalidInput(
                f"expected label_smoothing in [0, 1), got {self.label_smoothing}"
            )

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The classifier, features to classes."""
        return nn.Linear(sizes.feature_dim, sizes.classes)

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The module itself."""
        if not isinstance(module, nn.Linear):
            raise InvalidInput(f"expected the linear classifier, got {type(module).__name__}")
        return module

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean negative log-probability of the labels.

        Args:
            batch: One view's features, (1, b, f), b >= 2, labels, and the classifier.

        Returns:
            At least 0; ``log(c)`` at chance.

        Raises:
            InvalidInput: If labels or classifier are missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="cross_entropy")
        classifier = supplied(batch.module, "module")
        labels = supplied(batch.labels, "labels")
        logits = classifier(batch.features[0]).float()
        entropy = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return Loss.sum(entropy=entropy)
