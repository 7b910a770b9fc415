"""Batch norm over the images of all processes, on any device that they can talk across."""

import torch
from torch import distributed, nn
from torch.nn import functional

__all__ = ["SyncNorm", "synchronise_norms"]


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class SyncNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of all processes' images together.

    ``torch.nn.SyncBatchNorm`` does the same on GPUs alone. Every process must hold as many
    images as every other.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise (n, c, ...); the own slice of the whole batch's result."""
        if not self.training or not self.track_running_stats:
            return functional.batch_norm(
                values,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                eps=self.eps,
            )
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        count = values.numel() // values.shape[1] * distributed.get_world_size()
        exact = values.float()
        mean = _summed(exact.sum(dim=axes)) / count
        centred = exact - mean.view(shape)
        variance = _summed(centred.square().sum(dim=axes)) / count
        self._remember(mean.detach(), variance.detach(), count)
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(values.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Running statistics as ``nn.BatchNorm2d`` keeps them: the unbiased variance."""
        if self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            # Without a momentum it is the mean over all batches so far.
            share = 1 / int(self.num_batches_tracked) if share is None else share
        share = 0.0 if share is None else share
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of axes after the channels is right."""


def synchronise_norms(module: nn.Module) -> None:
    """Put a norm over all processes in the place of every batch norm, in place.

    Parameters and buffers stay the same objects under the same names, so that an optimiser
    built before still holds them.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, _converted(child))


def _converted(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    on_gpu = norm.weight is not None and norm.weight.device.type == "cuda"
    kind = nn.SyncBatchNorm if on_gpu else SyncNorm
    new = kind(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    new._parameters, new._buffers = norm._parameters, norm._buffers
    return new.train(norm.training)


def _summed(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
