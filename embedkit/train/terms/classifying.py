"""What objectives with a linear classifier on the features have in common."""

from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Sizes

__all__ = ["Classifying"]


class Classifying:
    """Builds the classifier, and gives it back to be exported."""

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The classifier, features to classes."""
        return nn.Linear(sizes.feature_dim, sizes.classes)

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The module itself."""
        if not isinstance(module, nn.Linear):
            raise InvalidInput(f"expected the linear classifier, got {type(module).__name__}")
        return module
