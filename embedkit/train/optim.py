"""Optimisers and schedules: gradients become steps, and steps become averages."""

import math
from collections.abc import Callable

import torch
from torch import nn

from embedkit.train.settings import OptimiserSection

__all__ = ["LARS", "average", "build_optimiser", "learning_rate", "set_learning_rate"]


def build_optimiser(settings: OptimiserSection, module: nn.Module) -> torch.optim.Optimizer:
    """Return an optimiser over the trainable parameters of a module.

    Weights of one dimension or none (norms, biases, scales) are not decayed: pulling them to
    zero removes capacity without making the function simpler.

    Args:
        settings: Kind, learning rate, decay.
        module: Its parameters that require gradients are optimised.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trainable if p.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    if settings.name == "lars":
        return LARS(groups, lr=settings.lr, momentum=settings.momentum, trust=settings.trust)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


class LARS(torch.optim.Optimizer):
    """SGD whose step per layer is proportional to the layer's norm (You et al., 2017).

    Parameters of one dimension or none take plain SGD steps, as in SimCLR and BYOL.

    Args:
        params: Parameters or groups, each with its own ``weight_decay``.
        lr: Learning rate.
        momentum: In [0, 1).
        weight_decay: Added to the gradient before the ratio is taken.
        trust: Ratio of a layer's step to its norm at learning rate 1.
    """

    def __init__(
        self,
        params: list[dict[str, object]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients that are there."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: torch.Tensor, group: dict[str, float]) -> None:
        """You et al., algorithm 1, for one layer."""
        update = parameter.grad.add(parameter, alpha=group["weight_decay"])  # type: ignore[union-attr]
        if parameter.ndim > 1:
            weight_norm, update_norm = parameter.norm(), update.norm()
            ratio = group["trust"] * weight_norm / update_norm
            update = update * torch.where((weight_norm > 0) & (update_norm > 0), ratio, 1.0)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        velocity: torch.Tensor = state["momentum"]
        velocity.mul_(group["momentum"]).add_(update, alpha=group["lr"])
        parameter.sub_(velocity)


def learning_rate(
    step: int, *, total: int, warmup: int, peak: float, final: float = 0.0
) -> float:
    """The learning rate of one step: linear warm-up, then half a cosine.

    Args:
        step: 0-based.
        total: Steps of the whole run.
        warmup: Steps until the peak; the first of them already has ``peak / warmup``.
        peak: Largest learning rate.
        final: Learning rate after the last step, as a fraction of the peak.

    Example:
        >>> [learning_rate(s, total=4, warmup=2, peak=1.0) for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr


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
