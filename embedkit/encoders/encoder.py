"""The Encoder: uint8 images in, features out, with normalisation inside.

One module of this package is one architecture: a frozen dataclass of its arguments, registered
under the module's name, whose ``build`` returns the network. The Encoder wraps that network, so
that training, export and the white-box attacks see the same three steps: to unit range,
normalise, run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, NamedTuple, Protocol

import torch
from torch import nn

from embedkit.encoders import PARTS
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec
from embedkit.registry import Registry, configure

__all__ = [
    "Architecture",
    "Backbone",
    "Encoded",
    "Encoder",
    "Hidden",
    "ImageTensor",
    "UnitPixels",
    "build_encoder",
    "encoders",
]

ImageTensor = Annotated[torch.Tensor, "n h w c"]
"""Images as the wire carries them: uint8, channels last."""

UnitPixels = Annotated[torch.Tensor, "n c h w"]
"""Images in [0, 1], floating point, channels first."""


class Encoded(NamedTuple):
    """What an encoder returns.

    Attributes:
        features: One vector per image, (n, d), not normalised.
        tokens: One vector per patch, (n, t, d), without class token and registers; None where
            the architecture has no patches.
    """

    features: torch.Tensor
    tokens: torch.Tensor | None


class Hidden(NamedTuple):
    """Patches that a network is not shown.

    Attributes:
        mask: (n, t) bool, True where hidden; the same number in every row if they are dropped.
        token: (d,) that stands in the place of a hidden patch; None drops the patch, so that
            ``tokens`` has the visible ones alone, in their order.
    """

    mask: torch.Tensor
    token: torch.Tensor | None = None


class Backbone(nn.Module):
    """A network from normalised pixels (n, c, h, w) to ``Encoded``.

    Where ``has_tokens`` is set it takes a ``Hidden`` beside the pixels, and ``encode_blocks``
    gives the tokens after every block.

    Attributes:
        feature_dim: d, the dimensions of the features.
        has_tokens: Whether ``tokens`` is given.
        grid: Rows and columns of patches; (0, 0) without patches.
        patch: Side of a patch in pixels; 0 without patches.
    """

    feature_dim: int
    has_tokens: bool = False
    grid: tuple[int, int] = (0, 0)
    patch: int = 0

    def encode_blocks(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens after every block, (n, blocks, t, d).

        Raises:
            InvalidInput: If there are no patches.
        """
        raise InvalidInput(f"expected a network with patches, got {type(self).__name__}")


class Architecture(Protocol):
    """A frozen dataclass of an architecture's arguments."""

    def build(self, spec: InputSpec) -> Backbone:
        """Return the network, initialised from torch's global generator."""
        ...


encoders: Registry[type[Architecture]] = Registry("embedkit.encoders", "encoder", exclude=PARTS)


class Encoder(nn.Module):
    """A backbone with the input conversion and normalisation of its bundle.

    Args:
        net: The backbone.
        spec: Size and channels of the images.
        mean: Per-channel mean that is subtracted, in [0, 1] units.
        std: Per-channel divisor, in [0, 1] units.
        config: What ``build_encoder`` takes to build this encoder again.

    Attributes:
        input: The images this encoder takes.
        feature_dim: d, the dimensions of the features.
        has_tokens: Whether it returns patch tokens.
        grid: Rows and columns of patches; (0, 0) without patches.
        patch: Side of a patch in pixels; 0 without patches.
        config: Plain JSON values that rebuild the encoder, without its weights.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        net: Backbone,
        spec: InputSpec,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        config: dict[str, object],
    ) -> None:
        super().__init__()
        self.net = net
        self.input = spec
        self.config = config
        self.feature_dim = net.feature_dim
        self.has_tokens = net.has_tokens
        self.grid, self.patch = net.grid, net.patch
        # In config already; a second copy in the weights could disagree with it.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def normalise_by(self, values: Mapping[str, Sequence[float]]) -> None:
        """Set ``mean``, ``std`` or both, one number for each channel."""
        for name, numbers in values.items():
            buffer: torch.Tensor = getattr(self, name)
            buffer.copy_(torch.tensor(numbers).view_as(buffer))
            self.config[name] = list(numbers)

    def to_unit(self, images: ImageTensor) -> UnitPixels:
        """Return the images as float (n, c, h, w) in [0, 1], channels-last in memory."""
        return images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255

    def encode(self, pixels: UnitPixels, hidden: Hidden | None = None) -> Encoded:
        """Normalise pixels in [0, 1] and run the network; differentiable in the pixels.

        Args:
            pixels: (n, c, h, w); training also gives sizes below that of ``input``.
            hidden: Patches that are not shown; for networks with patches.
        """
        normalised = (pixels - self.mean) / self.std
        encoded: Encoded = (
            self.net(normalised) if hidden is None else self.net(normalised, hidden)
        )
        return encoded

    def encode_blocks(self, pixels: UnitPixels) -> torch.Tensor:
        """Normalise pixels in [0, 1] and return the tokens after every block."""
        return self.net.encode_blocks((pixels - self.mean) / self.std)

    def forward(self, images: ImageTensor) -> Encoded:
        """Encode uint8 images of exactly the input size.

        Raises:
            InvalidInput: If they are not uint8 (n, height, width, channels).
        """
        size = (self.input.height, self.input.width, self.input.channels)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != size:
            raise InvalidInput(
                f"expected uint8 images (n, {size[0]}, {size[1]}, {size[2]}), "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        return self.encode(self.to_unit(images))


def build_encoder(config: Mapping[str, object], *, seed: int = 0) -> Encoder:
    """Build an encoder with freshly initialised weights.

    Args:
        config: ``name`` of the architecture, ``input`` (a manifest's input block), optional
            ``mean`` and ``std`` per channel (default 0.5 and 0.25), and the architecture's own
            arguments.
        seed: Of the initialisation; the global generator is left as it was.

    Returns:
        The encoder in training mode, on the CPU, float32. Its ``config`` holds every argument,
        defaults included, so that later changes of a default do not change stored encoders.

    Raises:
        InvalidInput: If the name, an argument or the input block is wrong.

    Example:
        >>> spec = InputSpec(height=8, width=8, channels=1)
        >>> encoder = build_encoder({"name": "resnet", "input": spec.to_dict()})
        >>> encoder(torch.zeros(2, 8, 8, 1, dtype=torch.uint8)).features.shape
        torch.Size([2, 96])
    """
    arguments = dict(config)
    name, block = arguments.pop("name", None), arguments.pop("input", None)
    if not isinstance(name, str) or not isinstance(block, dict):
        raise InvalidInput(
            f"expected 'name' and 'input' of an encoder, got {name!r}, {block!r}"
        )
    spec = InputSpec.from_dict(block)
    mean = _per_channel(arguments.pop("mean", 0.5), spec.channels, "mean")
    std = _per_channel(arguments.pop("std", 0.25), spec.channels, "std")
    if not 0 < min(std) <= max(std) <= 1 or not 0 <= min(mean) <= max(mean) <= 1:
        raise InvalidInput(
            f"expected mean in [0, 1] and std in (0, 1] of encoder {name!r}, got {mean} and "
            f"{std}; divide those of pixels from 0 to 255 by 255"
        )
    architecture = configure(encoders.get(name), arguments, noun=f"encoder {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = architecture.build(spec)
    resolved = {key: _plain(value) for key, value in asdict(architecture).items()}  # type: ignore[call-overload]
    resolved |= {"name": name, "input": spec.to_dict(), "mean": list(mean), "std": list(std)}
    return Encoder(net, spec, mean, std, resolved)


def _per_channel(value: object, channels: int, noun: str) -> tuple[float, ...]:
    """One number for every channel, from one number or a sequence of them."""
    values = value if isinstance(value, list | tuple) else (value,) * channels
    numbers = tuple(float(v) for v in values if isinstance(v, int | float))
    if len(numbers) != channels or len(values) != channels:
        raise InvalidInput(f"expected {noun} as {channels} numbers, got {value!r}")
    return numbers


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
