"""Gradients at the worst weights nearby, which lead to flat minima (SAM and AMP)."""

from collections.abc import Callable, Sequence

import torch

__all__ = ["perturbed_gradient"]

# Keeps a gradient of zero from becoming a direction of NaN.
_TINY = 1e-12


@torch.no_grad()
def perturbed_gradient(
    parameters: Sequence[torch.Tensor],
    gradient: Callable[[], None],
    *,
    radius: float,
    steps: int = 1,
) -> None:
    """Replace each ``grad`` by the gradient at perturbed weights; the weights stay.

    Zheng et al. (2021), Regularizing Neural Networks via Adversarial Model Perturbation,
    algorithm 1: ``steps`` times a step of length ``radius / steps`` up the normalised gradient,
    projected into the ball of ``radius`` around the weights. One step is SAM (Foret et al.,
    2021, equation 2 with p = 2).

    Args:
        parameters: Trained weights; their ``grad`` holds the gradient where they are.
        gradient: Replaces the ``grad`` of each by that of the same batch where they are then.
        radius: Largest l2 norm of the perturbation of all weights together, above 0.
        steps: Steps up, at least 1; each costs one more forward and backward pass.
    """
    before = [p.detach().clone() for p in parameters]
    offsets = [torch.zeros_like(p) for p in parameters]
    try:
        for _ in range(steps):
            _climb(parameters, offsets, radius / steps)
            _project(offsets, radius)
            for parameter, start, offset in zip(parameters, before, offsets, strict=True):
                parameter.copy_(start + offset)
            with torch.enable_grad():
                gradient()
    finally:
        # Copied, not subtracted: the sum of a difference is not the weight to the last bit.
        for parameter, start in zip(parameters, before, strict=True):
            parameter.copy_(start)


def _climb(
    parameters: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor], length: float
) -> None:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    scale = length / (_norm(gradients) + _TINY)
    for offset, direction in zip(offsets, gradients, strict=True):
        offset.add_(direction * scale)


def _project(offsets: Sequence[torch.Tensor], radius: float) -> None:
    scale = (radius / (_norm(offsets) + _TINY)).clamp(max=1.0)
    for offset in offsets:
        offset.mul_(scale)


def _norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([t.float().square().sum() for t in tensors]).sum().sqrt()
