"""Parts that transformers share: the block, fixed positions, initial weights."""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Block", "initialise", "sincos"]


class Block(nn.Module):
    """Attention over all tokens, then a perceptron on each; normalised before, added after.

    Args:
        dim: Dimensions of a token, a multiple of ``heads``.
        heads: Attention heads.
        hidden: Width of the perceptron.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (n, s, d) to tokens of the same shape."""
        x = x + self._attend(self.norm1(x))
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        projected: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


def sincos(rows: int, columns: int, dim: int) -> torch.Tensor:
    """Positions (rows * columns, dim): sine and cosine of row, then of column."""
    # Frequencies 1 to 1/10000 as in Vaswani et al. (2017), a quarter of dim for each part.
    frequency = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row = torch.arange(rows).repeat_interleave(columns).unsqueeze(1) * frequency
    column = torch.arange(columns).repeat(rows).unsqueeze(1) * frequency
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1).float()


def initialise(module: nn.Module) -> None:
    """Initialise a linear layer as transformers are; for ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
