"""Batch norms folded into the convolutions before them: the same function in less time."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_norms"]


def fold_norms(network: nn.Module) -> None:
    """Put every batch norm that a network declares into its convolution, in place.

    In evaluation a batch norm is one more affine map of each channel (Ioffe and Szegedy 2015),
    so its scale goes into the convolution's weights and its shift into the bias. Values change
    by rounding alone. A module declares pairs of its children in ``folds``; others stay.

    Args:
        network: In evaluation mode; afterwards its state has other names.

    Raises:
        ValueError: If a part of it is in training mode.
    """
    for module in list(network.modules()):
        for before, after in getattr(module, "folds", ()):
            convolution, norm = module.get_submodule(before), module.get_submodule(after)
            if norm.training:
                raise ValueError("expected a network in evaluation mode, got one in training")
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(convolution, norm))
                setattr(module, after, nn.Identity())
