"""Residual networks (He et al., 2016) for large and for small images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from embedkit.encoders.encoder import Backbone, Encoded, encoders
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec

__all__ = ["ResNet"]

Pairs = tuple[tuple[str, str], ...]
"""Convolutions of a module, each with the batch norm behind it."""


@dataclass(frozen=True)
class _Shape:
    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, ...]
    width: int
    stem: Literal["small", "half", "imagenet"]
    shortcut: Literal["A", "B"]


_PRESETS = {
    "tiny": _Shape("basic", (1, 1, 1), 24, "small", "B"),
    "resnet18": _Shape("basic", (2, 2, 2, 2), 64, "imagenet", "B"),
    "resnet20": _Shape("basic", (3, 3, 3), 16, "small", "A"),
    "resnet50": _Shape("bottleneck", (3, 4, 6, 3), 64, "imagenet", "B"),
}


@encoders.register("resnet")
@dataclass(frozen=True)
class ResNet:
    """Residual network; parameter names are those of torchvision.

    Attributes:
        preset: ``tiny`` (24-48-96 channels, 0.17 M parameters), ``resnet18``, ``resnet20`` (the
            one of the CIFAR experiments) or ``resnet50``: what the other arguments default to.
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1 to four times the width).
        blocks: Blocks per stage; each stage after the first halves the image.
        width: Channels of the first stage; each later stage has twice as many.
        stem: ``small`` (3x3, no pooling), ``half`` (3x3 with stride 2: half the size, a quarter
            of the work) or ``imagenet`` (7x7, max pooling; 4 times smaller).
        shortcut: Where shapes change: ``A`` takes every second pixel and pads channels with
            zeros, ``B`` learns a 1x1 convolution (He et al., section 3.3).
    """

    preset: Literal["tiny", "resnet18", "resnet20", "resnet50"] = "tiny"
    block: Literal["basic", "bottleneck"] | None = None
    blocks: tuple[int, ...] | None = None
    width: int | None = None
    stem: Literal["small", "half", "imagenet"] | None = None
    shortcut: Literal["A", "B"] | None = None

    def __post_init__(self) -> None:
        """Fill what was left open from the preset, so that a stored config is complete."""
        for name, value in vars(_PRESETS[self.preset]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        shape = self._shape()
        if not shape.blocks or min(shape.blocks) < 1 or shape.width < 1:
            raise InvalidInput(
                f"expected at least one block per stage and one channel, "
                f"got blocks={shape.blocks}, width={shape.width}"
            )

    def build(self, spec: InputSpec) -> Backbone:
        """Return the network for images of ``spec.channels`` channels; any size."""
        return _ResNet(self._shape(), spec.channels)

    def _shape(self) -> _Shape:
        return _Shape(**{name: getattr(self, name) for name in _Shape.__dataclass_fields__})


class _ResNet(Backbone):
    folds: ClassVar[Pairs] = (("conv1", "bn1"),)

    def __init__(self, shape: _Shape, channels: int) -> None:
        super().__init__()
        large = shape.stem == "imagenet"
        self.conv1 = (
            nn.Conv2d(channels, shape.width, 7, stride=2, padding=3, bias=False)
            if large
            else nn.Conv2d(
                channels,
                shape.width,
                3,
                stride=2 if shape.stem == "half" else 1,
                padding=1,
                bias=False,
            )
        )
        self.bn1 = nn.BatchNorm2d(shape.width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        block: Callable[[int, int, int, str], nn.Module] = (
            _Basic if shape.block == "basic" else _Bottleneck
        )
        expansion = 1 if shape.block == "basic" else 4
        before = shape.width
        for index, count in enumerate(shape.blocks):
            width = shape.width * 2**index
            after = width * expansion
            first = block(before, width, 1 if index == 0 else 2, shape.shortcut)
            rest = [block(after, width, 1, shape.shortcut) for _ in range(count - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(first, *rest))
            before = after
        self.depth = len(shape.blocks)
        self.feature_dim = before
        _initialise(self)

    def forward(self, pixels: torch.Tensor) -> Encoded:
        x = self.maxpool(_relu(self.bn1(self.conv1(pixels))))
        for index in range(self.depth):
            x = self.get_submodule(f"layer{index + 1}")(x)
        return Encoded(x.mean(dim=(2, 3)), None)


def _relu(x: torch.Tensor) -> torch.Tensor:
    """In place: no gradient needs what stood there."""
    return functional.relu(x, inplace=True)


class _Basic(nn.Module):
    folds: ClassVar[Pairs] = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, before: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(before, width, stride, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return _relu(y)


class _Bottleneck(nn.Module):
    folds: ClassVar[Pairs] = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, before: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(before, 4 * width, stride, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _relu(self.bn1(self.conv1(x)))
        y = _relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return _relu(y)


class _SliceAndPad(nn.Module):
    """Shortcut A: every ``stride``-th pixel, new channels zero on both sides."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (0, 0, 0, 0, extra // 2, extra - extra // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class _Projection(nn.Sequential):
    """Shortcut B: a 1x1 convolution and its norm."""

    folds: ClassVar[Pairs] = (("0", "1"),)


def _shortcut(before: int, after: int, stride: int, kind: str) -> nn.Module:
    if before == after and stride == 1:
        return nn.Identity()
    if kind == "A":
        return _SliceAndPad(after - before, stride)
    return _Projection(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
