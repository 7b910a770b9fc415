"""Vision transformers (Dosovitskiy et al., 2021) for any image and patch size."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from embedkit.encoders.encoder import Backbone, Encoded, Hidden, encoders
from embedkit.encoders.transformer import Block, imitate, initialise, sincos
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec

__all__ = ["ViT"]

_PRESETS = {
    "nano": {"dim": 96, "depth": 4, "heads": 3},
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
}


@encoders.register("vit")
@dataclass(frozen=True)
class ViT:
    """Vision transformer with optional registers; returns one token per patch.

    Attributes:
        preset: ``nano`` (0.45 M parameters), ``tiny`` (5.4 M) or ``small`` (21.3 M): what
            ``dim``, ``depth`` and ``heads`` default to.
        patch: Side of a square patch in pixels; an image that is no multiple of it is padded
            with the encoder's mean at the right and bottom.
        dim: Dimensions of a token, a multiple of ``heads``.
        depth: Transformer blocks.
        heads: Attention heads per block.
        expansion: Hidden width of each block's perceptron, as a multiple of ``dim``.
        registers: Learned tokens beside the patches that carry no patch of their own
            (Darcet et al., 2024).
        positions: ``sincos`` (fixed, needs ``dim`` divisible by 4) or ``learned``.
        pooling: Features are the class token (``cls``) or the ``mean`` of the patch tokens.
        initial: Weights of the attention before training: ``random``, or ``mimetic``, close to
            what training makes of them, which helps most where there are few images.
    """

    preset: Literal["nano", "tiny", "small"] = "tiny"
    patch: int = 4
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    expansion: int = 4
    registers: int = 0
    positions: Literal["sincos", "learned"] = "sincos"
    pooling: Literal["cls", "mean"] = "cls"
    initial: Literal["random", "mimetic"] = "random"

    def __post_init__(self) -> None:
        """Fill what was left open from the preset, so that a stored config is complete."""
        for name, value in _PRESETS[self.preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        sizes = {n: getattr(self, n) for n in ("patch", "dim", "depth", "heads", "expansion")}
        if min(sizes.values()) < 1 or self.registers < 0:
            raise InvalidInput(f"expected sizes of at least 1, got {sizes}, {self.registers=}")
        if sizes["dim"] % sizes["heads"]:
            raise InvalidInput(
                f"expected dim as a multiple of heads, got {self.dim} and {self.heads}"
            )
        if self.positions == "sincos" and sizes["dim"] % 4:
            raise InvalidInput(
                f"expected dim divisible by 4 for sincos positions, got {self.dim}; "
                "use positions = 'learned'"
            )

    def build(self, spec: InputSpec) -> Backbone:
        """Return the network for images of exactly the size of ``spec``."""
        return _ViT(self, spec)


class _ViT(Backbone):
    def __init__(self, shape: ViT, spec: InputSpec) -> None:
        super().__init__()
        dim, depth, heads = int(shape.dim or 0), int(shape.depth or 0), int(shape.heads or 0)
        rows, columns = (math.ceil(side / shape.patch) for side in (spec.height, spec.width))
        self.grid, self.patch = (rows, columns), shape.patch
        self.embed = nn.Conv2d(spec.channels, dim, shape.patch, stride=shape.patch)
        with_class = shape.pooling == "cls"
        self.mean_pooled = not with_class
        self.extra = int(with_class) + shape.registers
        # The class token first, then the registers; neither has a position.
        self.prefix = nn.Parameter(torch.randn(1, self.extra, dim) * 0.02)
        if shape.positions == "learned":
            self.positions = nn.Parameter(torch.randn(1, rows * columns, dim) * 0.02)
        else:
            fixed = sincos(rows, columns, dim).unsqueeze(0)
            self.register_buffer("positions", fixed, persistent=False)
        self.blocks = nn.Sequential(
            *(Block(dim, heads, shape.expansion * dim) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.feature_dim = dim
        self.has_tokens = True
        self.apply(initialise)
        if shape.initial == "mimetic":
            self.apply(imitate)

    def forward(self, pixels: torch.Tensor, hidden: Hidden | None = None) -> Encoded:
        x = self.norm(self.blocks(self._embed(pixels, hidden)))
        tokens = x[:, self.extra :]
        return Encoded(tokens.mean(dim=1) if self.mean_pooled else x[:, 0], tokens)

    def encode_blocks(self, pixels: torch.Tensor) -> torch.Tensor:
        x, outputs = self._embed(pixels, None), []
        for block in self.blocks:
            x = block(x)
            outputs.append(x[:, self.extra :])
        return torch.stack(outputs, dim=1)

    def _embed(self, pixels: torch.Tensor, hidden: Hidden | None) -> torch.Tensor:
        """What the first block sees: class token, registers and patches, (n, s, d)."""
        height, width = pixels.shape[2:]
        padding = (0, -width % self.patch, 0, -height % self.patch)
        if any(padding):
            pixels = functional.pad(pixels, padding)
        grid = (pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
        tokens = self.embed(pixels).flatten(2).transpose(1, 2)
        if hidden is not None and hidden.token is not None:
            tokens = torch.where(
                hidden.mask.unsqueeze(2), hidden.token.to(tokens.dtype), tokens
            )
        tokens = tokens + self._positions(grid)
        if hidden is not None and hidden.token is None:
            tokens = tokens[~hidden.mask].reshape(len(tokens), -1, tokens.shape[2])
        prefix = self.prefix.expand(tokens.shape[0], -1, -1)
        return torch.cat([prefix, tokens], dim=1)

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """Positions of a grid; interpolated where it is not the grid of the input size."""
        if grid == self.grid:
            return self.positions
        table = self.positions.reshape(1, *self.grid, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(table, grid, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)
