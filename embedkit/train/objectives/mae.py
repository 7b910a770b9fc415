"""MAE: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.encoders.patches import PatchDecoder, cut
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, hide_scattered, require

__all__ = ["MAE"]


class _Autoencoder(nn.Module):
    """The decoder, and how pixels are cut for it."""

    def __init__(self, sizes: Sizes, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.grid, self.patch = sizes.grid, sizes.patch
        pixels = sizes.patch**2 * sizes.image_shape[2]
        self.decoder = PatchDecoder(
            sizes.feature_dim, sizes.grid, pixels, dim=dim, depth=depth, heads=heads
        )


@objectives.register("mae")
@dataclass(frozen=True)
class MAE:
    """Draw the pixels of hidden patches from the few that are shown (section 3).

    The encoder runs on visible patches alone, a small decoder on all. The error is the mean
    square over hidden patches, whose pixels are standardised within each patch. Needs an
    encoder with patches; let the features be the mean of the tokens, with
    encoder.pooling = 'mean', and augment little: cropping is enough.

    Attributes:
        hidden: Share of patches that the encoder is not shown, in (0, 1).
        dim: Dimensions of the decoder's tokens, divisible by 4 and by ``heads``.
        depth: Blocks of the decoder.
        heads: Attention heads of the decoder.
        standardised: Whether a patch's mean and deviation are taken out of the target.
    """

    hidden: float = 0.75
    dim: int = 64
    depth: int = 1
    heads: int = 4
    standardised: bool = True

    needs = frozenset({"tokens", "mask", "pixels"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 < self.hidden < 1, "hidden in (0, 1)", self.hidden)
        require(min(self.dim, self.depth, self.heads) >= 1, "sizes of at least 1", self)
        fits = self.dim % 4 == 0 and self.dim % self.heads == 0
        require(fits, "a dim divisible by 4 and by heads", (self.dim, self.heads))

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The decoder."""
        return _Autoencoder(sizes, self.dim, self.depth, self.heads)

    def hide(
        self, grid: tuple[int, int], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Patches drawn evenly; see ``Masking``."""
        return hide_scattered(grid, count, self.hidden, generator)

    def mask_token(self, module: nn.Module) -> torch.Tensor | None:
        """Hidden patches are dropped."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean squared error of the pixels of hidden patches.

        Args:
            batch: Tokens of one view's visible patches, (1, b, visible, f), b >= 2, the mask,
                the view's pixels, and the decoder.

        Returns:
            At least 0; about 1 where nothing but the mean is known, if standardised.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="mae")
        module = built(batch, _Autoencoder)
        mask = supplied(batch.mask, "mask")[0]
        tokens = supplied(batch.tokens, "tokens")[0]
        pixels = supplied(batch.pixels, "pixels")[0].float()
        target = cut(pixels, module.grid, module.patch)[mask]
        if self.standardised:
            mean = target.mean(dim=1, keepdim=True)
            # The authors' epsilon: a flat patch has no deviation to divide by.
            deviation = (target.var(dim=1, keepdim=True) + 1e-6).sqrt()
            target = (target - mean) / deviation
        predicted = module.decoder(tokens, mask)[mask].float()
        return Loss.sum(reconstruction=(predicted - target).square().mean())
