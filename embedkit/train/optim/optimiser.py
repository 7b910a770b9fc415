"""Optimisers: gradients become steps."""

from collections.abc import Callable

import torch
from torch import nn

from embedkit.train.settings import OptimiserSection

__all__ = ["LARS", "build_optimiser"]


def build_optimiser(settings: OptimiserSection, module: nn.Module) -> torch.optim.Optimizer:
    """Return an optimiser over the trainable parameters of a module.

    Weights of one dimension or none (norms, biases, scales) are not decayed: pulling them to
    zero removes capacity without making the function simpler.

    The fused implementations do the same arithmetic in one pass over the weights, which on a
    CPU takes a third of the time.

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
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    if settings.name == "lars":
        return LARS(groups, lr=settings.lr, momentum=settings.momentum, trust=settings.trust)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


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
