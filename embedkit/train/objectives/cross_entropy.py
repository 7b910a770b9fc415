"""Cross entropy: plain supervised training with a linear classifier."""

from dataclasses import dataclass

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, objectives, supplied
from embedkit.train.terms import Classifying, check_views, soft_cross_entropy

__all__ = ["CrossEntropy"]


@objectives.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Classifying):
    """Classify each image with a linear layer on the features; the layer is exported.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
    """

    label_smoothing: float = 0.0

    needs = frozenset({"targets"})
    views = 1

    def __post_init__(self) -> None:
        """Check the smoothing."""
        if not 0 <= self.label_smoothing < 1:
            raise InvalidInput(
                f"expected label_smoothing in [0, 1), got {self.label_smoothing}"
            )

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean negative log-probability of the labels, mixed ones by their shares.

        Args:
            batch: One view's features, (1, b, f), b >= 2, targets, and the classifier.

        Returns:
            At least 0; ``log(c)`` at chance.

        Raises:
            InvalidInput: If targets or classifier are missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="cross_entropy")
        classifier = supplied(batch.module, "module")
        targets = supplied(batch.targets, "targets")[0]
        smooth = (1 - self.label_smoothing) * targets
        smooth = smooth + self.label_smoothing / targets.shape[1]
        return Loss.sum(
            entropy=soft_cross_entropy(classifier(batch.features[0]), smooth).mean()
        )
