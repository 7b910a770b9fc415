"""Averaged weights: a copy of a module that follows it slowly."""

import torch
from torch import nn

__all__ = ["average"]


@torch.no_grad()
def average(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move the weights of ``target`` towards those of ``source``, in place.

    Parameters become ``momentum * target + (1 - momentum) * source``. Buffers are copied:
    running statistics are averages already, and counters have no mean.

    Args:
        target: A copy of ``source``, or of a part of it with the same names.
        source: The module that is being trained.
        momentum: Share of the old weights that is kept, in [0, 1].
    """
    weights = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.lerp_(weights[name], 1 - momentum)
    buffers = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        buffer.copy_(buffers[name])
