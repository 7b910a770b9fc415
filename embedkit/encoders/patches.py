"""Patches back to pixels: the decoder of masked autoencoders; left out of the bundle."""

import torch
from torch import nn
from torch.nn import functional

from embedkit.encoders.transformer import Block, initialise, sincos

__all__ = ["PatchDecoder", "cut"]


def cut(pixels: torch.Tensor, grid: tuple[int, int], patch: int) -> torch.Tensor:
    """Return each image's patches as rows of pixels.

    Args:
        pixels: (n, c, h, w); padded with zeros at the right and bottom to whole patches.
        grid: Rows and columns of patches.
        patch: Side of a patch in pixels.

    Returns:
        (n, rows * columns, patch * patch * c), patches and pixels row by row, channels last.
    """
    rows, columns = grid
    missing = (0, columns * patch - pixels.shape[3], 0, rows * patch - pixels.shape[2])
    padded = functional.pad(pixels, missing)
    split = padded.reshape(len(pixels), pixels.shape[1], rows, patch, columns, patch)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), rows * columns, -1)


class PatchDecoder(nn.Module):
    """From the tokens of visible patches to the pixels of all (He et al., 2022).

    Args:
        token_dim: Dimensions of the encoder's tokens.
        grid: Rows and columns of patches.
        pixels: Numbers per patch.
        dim: Dimensions of the decoder's tokens, divisible by 4 and by ``heads``.
        depth: Transformer blocks.
        heads: Attention heads per block.
    """

    positions: torch.Tensor

    def __init__(
        self,
        token_dim: int,
        grid: tuple[int, int],
        pixels: int,
        *,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, dim)
        self.register_buffer("positions", sincos(*grid, dim), persistent=False)
        self.blocks = nn.Sequential(*(Block(dim, heads, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.predict = nn.Linear(dim, pixels)
        self.apply(initialise)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return pixels of every patch, (n, t, pixels).

        Args:
            tokens: Of the visible patches in their order, (n, visible, token_dim).
            mask: (n, t) bool, True where a patch was hidden.
        """
        embedded = self.embed(tokens)
        whole = self.mask_token.to(embedded.dtype).expand(*mask.shape, -1).clone()
        whole[~mask] = embedded.flatten(0, 1)
        decoded = self.blocks(whole + self.positions.to(embedded.dtype))
        predicted: torch.Tensor = self.predict(self.norm(decoded))
        return predicted
