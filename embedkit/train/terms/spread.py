"""Spread: the terms that keep the dimensions of a batch apart and alive."""

import torch

from embedkit.train.terms.views import exact_product

__all__ = [
    "covariance",
    "covariance_penalty",
    "cross_correlation",
    "off_diagonal",
    "standardised",
    "variance_hinge",
]


def variance_hinge(z: torch.Tensor, spread: float, epsilon: float = 1e-4) -> torch.Tensor:
    """VICReg equations 1 and 2: mean over dimensions of ``max(0, spread - std)``.

    Args:
        z: (b, d) float, b >= 2.
        spread: Standard deviation below which a dimension is penalised.
        epsilon: Added to the variance, so that the root has a gradient at 0.
    """
    deviation = torch.sqrt(z.float().var(dim=0) + epsilon)
    return torch.relu(spread - deviation).mean()


def covariance(z: torch.Tensor) -> torch.Tensor:
    """Sample covariance of the dimensions, (d, d) float32.

    Args:
        z: (b, d) float, b >= 2.
    """
    centred = z.float() - z.float().mean(dim=0)
    return exact_product(centred.T, centred.T) / (len(z) - 1)


def covariance_penalty(z: torch.Tensor) -> torch.Tensor:
    """VICReg equations 3 and 4: sum of squared off-diagonal covariances over d.

    Args:
        z: (b, d) float, b >= 2.
    """
    return off_diagonal(covariance(z)).square().sum() / z.shape[1]


def off_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    """The square matrix with zeros on its diagonal."""
    return matrix - torch.diag(torch.diagonal(matrix))


def standardised(z: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    """Each dimension with mean 0 and variance 1 over the batch, as batch norm does it.

    Args:
        z: (b, d) float, b >= 2.
        epsilon: Added to the variance.

    Returns:
        (b, d) float32.
    """
    centred = z.float() - z.float().mean(dim=0)
    return centred / torch.sqrt(centred.square().mean(dim=0) + epsilon)


def cross_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Barlow Twins equation 2: how dimensions of one view vary with those of another.

    Args:
        first: (b, d), standardised.
        second: (b, d), standardised.

    Returns:
        (d, d) float32 in [-1, 1].
    """
    return exact_product(first.T, second.T) / len(first)
