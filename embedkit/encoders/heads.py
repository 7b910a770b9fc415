"""Small perceptrons after the encoder: used while training, left out of the bundle."""

from itertools import pairwise
from typing import Literal

from torch import nn

from embedkit.errors import InvalidInput

__all__ = ["prediction_head", "projection_head"]

Norm = Literal["batch", "layer", "none"]


def projection_head(
    dim_in: int,
    hidden: int,
    dim_out: int,
    *,
    layers: int = 2,
    norm: Norm = "batch",
) -> nn.Sequential:
    """A perceptron from features (b, dim_in) to projections (b, dim_out).

    Every layer but the last is linear, norm, ReLU; the last is linear without bias, since the
    projections are compared with one another and a shared offset says nothing.

    Args:
        dim_in: Dimensions of the features.
        hidden: Dimensions of each hidden layer; not used by a single layer.
        dim_out: Dimensions of the projections.
        layers: Linear layers, at least 1.
        norm: After each hidden layer: ``batch``, ``layer`` or ``none``.

    Raises:
        InvalidInput: If a size is below 1 or the norm is unknown.

    Example:
        >>> import torch
        >>> projection_head(96, 256, 64)(torch.zeros(4, 96)).shape
        torch.Size([4, 64])
    """
    if min(dim_in, hidden, dim_out, layers) < 1:
        raise InvalidInput(
            f"expected sizes of at least 1, got dim_in={dim_in}, hidden={hidden}, "
            f"dim_out={dim_out}, layers={layers}"
        )
    steps: list[nn.Module] = []
    for before, after in pairwise([dim_in, *[hidden] * (layers - 1)]):
        # Batch norm has an offset of its own.
        steps.append(nn.Linear(before, after, bias=norm != "batch"))
        steps.append(_norm(norm, after))
        steps.append(nn.ReLU())
    steps.append(nn.Linear(hidden if layers > 1 else dim_in, dim_out, bias=False))
    return nn.Sequential(*steps)


def prediction_head(dim: int, hidden: int, *, norm: Norm = "batch") -> nn.Sequential:
    """A two-layer perceptron from projections (b, dim) to predictions of projections (b, dim).

    Args:
        dim: Dimensions of a projection.
        hidden: Dimensions of the hidden layer.
        norm: After the hidden layer: ``batch``, ``layer`` or ``none``.

    Raises:
        InvalidInput: If a size is below 1 or the norm is unknown.
    """
    if min(dim, hidden) < 1:
        raise InvalidInput(f"expected sizes of at least 1, got dim={dim}, hidden={hidden}")
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=norm != "batch"),
        _norm(norm, hidden),
        nn.ReLU(),
        nn.Linear(hidden, dim),
    )


def _norm(kind: Norm, dim: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(dim)
    if kind == "layer":
        return nn.LayerNorm(dim)
    if kind == "none":
        return nn.Identity()
    raise InvalidInput(f"expected the norm batch, layer or none, got {kind!r}")
