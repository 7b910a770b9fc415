"""data2vec: Baevski et al., A General Framework for Self-supervised Learning, ICML 2022."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, hide_blobs, require

__all__ = ["Data2Vec"]


class _Regression(nn.Module):
    """What stands in the place of hidden patches, and the layer from tokens to targets."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.predictor = nn.Linear(dim, dim)


@objectives.register("data2vec")
@dataclass(frozen=True)
class Data2Vec:
    """Predict the averaged network's tokens of hidden patches, from the visible ones (eq. 3).

    Targets are the mean of the teacher's last blocks, each normalised per token (section 3.3),
    from the same view with nothing hidden. Only patch tokens are trained: let the features be
    their mean, with encoder.pooling = 'mean'. Needs an encoder with patches.

    Attributes:
        layers: Last blocks that are averaged, at least 1; at most as many as there are (K).
        beta: Error above which the loss is linear, above 0, in units of the targets.
        hidden: Share of patches that the student is not shown, in (0, 1).
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1]
            (tau_0).
        final_momentum: The same after ``rise``, in [0, 1] (tau_e).
        rise: Share of the run over which the momentum rises linearly (tau_n).
    """

    layers: int = 3
    beta: float = 2.0
    hidden: float = 0.6
    momentum: float = 0.99
    final_momentum: float = 0.999
    rise: float = 0.5

    needs = frozenset({"tokens", "mask", "teacher_blocks"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.layers >= 1, "at least 1 layer", self.layers)
        require(self.beta > 0, "a beta above 0", self.beta)
        require(0 < self.hidden < 1, "hidden in (0, 1)", self.hidden)
        shares = (self.momentum, self.final_momentum, self.rise)
        require(all(0 <= s <= 1 for s in shares), "momenta and rise in [0, 1]", shares)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The mask token and the predictor."""
        return _Regression(sizes.feature_dim)

    def teacher_momentum(self, progress: float) -> float:
        """Section 3.2: linear from ``momentum`` to ``final_momentum``, then constant."""
        risen = min(1.0, progress / self.rise) if self.rise else 1.0
        return self.momentum + (self.final_momentum - self.momentum) * risen

    def hide(
        self, grid: tuple[int, int], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Connected areas, as in BEiT; see ``Masking``."""
        return hide_blobs(grid, count, self.hidden, generator)

    def mask_token(self, module: nn.Module) -> torch.Tensor | None:
        """The learned token."""
        return module.get_parameter("mask_token")

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean smooth L1 distance over hidden patches and dimensions.

        Args:
            batch: One view's tokens, (1, b, t, f), b >= 2, the mask, the teacher's blocks and
                the module.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="data2vec")
        module = built(batch, _Regression)
        mask = supplied(batch.mask, "mask")
        blocks = supplied(batch.teacher_blocks, "teacher_blocks").detach().float()
        last = blocks[:, :, -self.layers :]
        normalised = functional.layer_norm(last, last.shape[-1:])
        targets = normalised.mean(dim=2)[mask]
        predicted = module.predictor(supplied(batch.tokens, "tokens")[mask]).float()
        # Equation 3 as printed: torch's own smooth L1 with the same beta.
        distance = functional.smooth_l1_loss(predicted, targets, beta=self.beta)
        return Loss.sum(regression=distance)
