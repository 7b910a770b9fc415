"""Mixed Barlow Twins: Bandara et al., Guarding Barlow Twins Against Overfitting, 2023."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.batch import Transformed
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    check_views,
    cross_correlation,
    off_diagonal,
    require,
    standardised,
)

__all__ = ["MixedBarlowTwins"]


@objectives.register("mixed_barlow_twins")
@dataclass(frozen=True)
class MixedBarlowTwins:
    """Barlow Twins whose projections of mixed images must be mixed projections (section 3).

    A third view is ``share * first + (1 - share) * second of another image``. Its correlations
    with either view must be the same mixture of correlations, as if the encoder were linear.
    Share (uniform, one of the batch) and partners are drawn anew for each batch.

    Attributes:
        redundancy: Weight of the squared correlations off the diagonal (lambda), at least 0.
        mixing: Weight of the mixed correlations, in units of ``redundancy``, at least 0.
    """

    redundancy: float = 0.0078125
    mixing: float = 4.0

    needs = frozenset({"projections"})
    views = 3
    drawn = 2

    def __post_init__(self) -> None:
        """Check the weights."""
        weights = (self.redundancy, self.mixing)
        require(min(weights) >= 0, "redundancy and mixing of at least 0", weights)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def transform(self, views: torch.Tensor, generator: torch.Generator) -> Transformed:
        """Add the mixed view.

        Args:
            views: Two views, (2, b, c, h, w) in [0, 1].
            generator: On the same device.

        Returns:
            Three views; notes ``share`` (b,) and ``partner`` (b,), positions in the batch.
        """
        b = views.shape[1]
        partner = torch.randperm(b, generator=generator, device=views.device)
        share = torch.rand((), generator=generator, device=views.device)
        mixed = torch.lerp(views[1][partner], views[0], share.to(views.dtype))
        notes = {"share": share.expand(b), "partner": partner}
        return Transformed(torch.cat([views, mixed[None]]), notes)

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum over all pairs of dimensions of all three correlations.

        Args:
            batch: Two views and the mixed one, (3, b, d), not normalised, b >= 2, with notes.

        Returns:
            At least 0, in the parts ``invariance``, ``redundancy`` and ``mixing``.

        Raises:
            InvalidInput: If there are not three views, fewer than two images, or no notes.
        """
        check_views(batch.projections, views=3, name="mixed_barlow_twins")
        partner = supplied(batch.notes.get("partner"), "notes of transform")
        share = supplied(batch.notes.get("share"), "notes of transform")[0].float()
        first, second, mixed = (standardised(z) for z in batch.projections)
        correlation = cross_correlation(first, second)
        apart = [
            cross_correlation(mixed, view)
            - share * cross_correlation(first, view)
            - (1 - share) * cross_correlation(second[partner], view)
            for view in (first, second)
        ]
        weight = self.mixing * self.redundancy
        return Loss.sum(
            invariance=(torch.diagonal(correlation) - 1).square().sum(),
            redundancy=self.redundancy * off_diagonal(correlation).square().sum(),
            mixing=weight * (apart[0].square().sum() + apart[1].square().sum()),
        )
