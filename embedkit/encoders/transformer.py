"""Parts that transformers share: the block, fixed positions, initial weights."""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Block", "imitate", "initialise", "sincos"]


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


# Of the identity and of the noise beside it: Trockman and Kolter's for a ViT-Tiny on CIFAR-10.
_QUERY_KEY, _VALUE_OUT = 0.7, 0.4


@torch.no_grad()
def imitate(block: nn.Module) -> None:
    """Let a block's attention begin as trained ones look; for ``Module.apply``.

    Trockman and Kolter (2023), Mimetic Initialization of Self-Attention Layers: in trained
    transformers tokens attend to those like themselves, and what is added goes against the
    token (equations 4 and 5, with Z of independent normal entries of variance 1 / d)::

        W_q W_k^T =  a I + a Z     for each head, a = 0.7
        W_v W_o   = -b I + b Z     over all heads, b = 0.4

    Both products are split by their singular values, W_q W_k^T after the largest ones that a
    head has dimensions for. Biases become 0.

    Args:
        block: Changed in place if it is a ``Block``; numbers come from torch's global
            generator.
    """
    if not isinstance(block, Block):
        return
    dim = block.out.in_features
    width = dim // block.heads
    for head in range(block.heads):
        query, key = _split(_near_identity(dim, _QUERY_KEY, _QUERY_KEY))
        rows = slice(head * width, (head + 1) * width)
        # A linear layer holds the transpose of the paper's matrices.
        block.qkv.weight[:dim][rows] = query[:, :width].T
        block.qkv.weight[dim : 2 * dim][rows] = key[:width]
    value, out = _split(_near_identity(dim, -_VALUE_OUT, _VALUE_OUT))
    block.qkv.weight[2 * dim :] = value.T
    block.out.weight.copy_(out.T)
    nn.init.zeros_(block.qkv.bias)
    nn.init.zeros_(block.out.bias)


def _near_identity(dim: int, identity: float, noise: float) -> torch.Tensor:
    random: torch.Tensor = noise * torch.randn(dim, dim) / dim**0.5
    return random + identity * torch.eye(dim)


def _split(product: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors of equal weight: (d, d) with columns, and with rows, by singular value."""
    left, values, right = torch.linalg.svd(product)
    root = values.sqrt()
    return left * root, root.unsqueeze(1) * right
