"""iSogCLR: Qiu et al., Automatic Temperature Individualization, ICML 2023."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, image_pairs, require

__all__ = ["IndividualTemperature", "Individuals"]


class Individuals(nn.Module):
    """What is known of each training image.

    Attributes:
        temperature: (n,).
        mean: Moving average of the mean exponential (s), (n,); 0 before the first visit.
        slope: Moving average of the derivative by the temperature (u), (n,).

    Args:
        images: Number of training images.
        start: Temperature of all of them.
    """

    temperature: torch.Tensor
    mean: torch.Tensor
    slope: torch.Tensor

    def __init__(self, images: int, start: float) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.full((images,), start))
        self.register_buffer("mean", torch.zeros(images))
        self.register_buffer("slope", torch.zeros(images))


@objectives.register("individual_temperature")
@dataclass(frozen=True)
class IndividualTemperature:
    """Contrast at a temperature of each image's own, learned along (RGCL by iSogCLR).

    With h the cosine of a negative minus that of the positive, an image's loss is
    ``tau * log(mean(exp(h / tau))) + tau * radius``, its smallest value over the temperature:
    the worst case over all weights of its negatives within a Kullback-Leibler ball (section 3).
    The mean and the derivative by tau are moving averages over visits (algorithm 1).

    Attributes:
        start: Temperature of every image at the start, in [lowest, highest].
        lowest: Bound of the temperatures (tau_0), above 0.
        highest: Upper bound, which keeps early estimates in reach.
        radius: Of the ball (rho), at least 0; a larger one gives lower temperatures.
        rate: Step of the temperature along its averaged derivative (eta), at least 0.
        mean_rate: Share of the new value in the moving mean (beta_0), in (0, 1].
        slope_rate: Share of the new value in the moving derivative (beta_1), in (0, 1].
    """

    start: float = 0.2
    lowest: float = 0.05
    highest: float = 1.0
    radius: float = 0.3
    rate: float = 0.02
    mean_rate: float = 0.8
    slope_rate: float = 0.9

    needs = frozenset({"projections", "indices"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        bounds = (self.lowest, self.start, self.highest)
        require(
            0 < self.lowest <= self.start <= self.highest,
            "temperatures 0 < lowest <= start <= highest",
            bounds,
        )
        require(self.radius >= 0, "a radius of at least 0", self.radius)
        require(self.rate >= 0, "a rate of at least 0", self.rate)
        shares = (self.mean_rate, self.slope_rate)
        require(min(shares) > 0 and max(shares) <= 1, "rates of averages in (0, 1]", shares)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Temperature, mean and slope of every image."""
        return Individuals(sizes.images, self.start)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean loss of the images, and move their temperatures.

        Args:
            batch: Two views, (2, b, d), b >= 2, with indices and what is known of the images.

        Returns:
            Of any sign. The gradient is that of algorithm 1: negatives are weighted by the
            moving mean, not by that of this batch.

        Raises:
            InvalidInput: If indices or module are missing, there are not two views, or fewer
                than two images.
        """
        check_views(batch.projections, views=2, name="individual_temperature")
        known, indices = built(batch, Individuals), supplied(batch.indices, "indices")
        if int(indices.max()) >= len(known.mean):
            raise InvalidInput(
                f"expected indices below the {len(known.mean)} known images, "
                f"got {int(indices.max())}"
            )
        pairs = image_pairs(batch.projections)
        others = torch.isfinite(pairs.negatives)
        count = others.shape[1] - 2
        excess = (pairs.negatives - pairs.positives[:, None]).masked_fill(~others, 0.0)
        tau = known.temperature[indices].float().repeat(2)
        with torch.no_grad():
            powers = torch.exp(excess / tau[:, None]).masked_fill(~others, 0.0)
            mean = self._mean(known, indices, powers.sum(dim=1) / count)
            weights = powers / (mean[:, None] * count)
            value = tau * torch.log(mean)
            self._move(known, indices, weights, excess / tau[:, None])
        # The value is that of the loss, the gradient that of its weighted sum.
        surrogate = (weights * excess).sum(dim=1)
        contrast = value + surrogate - surrogate.detach()
        return Loss.sum(contrast=contrast.mean(), radius=(tau * self.radius).mean())

    def _mean(
        self, known: Individuals, indices: torch.Tensor, fresh: torch.Tensor
    ) -> torch.Tensor:
        """The moving mean of each view, (2b,); that of the image is remembered."""
        old = known.mean[indices].float().repeat(2)
        mean = torch.where(old == 0, fresh, torch.lerp(old, fresh, self.mean_rate))
        known.mean[indices] = mean.reshape(2, -1).mean(dim=0).to(known.mean.dtype)
        return mean

    def _move(
        self,
        known: Individuals,
        indices: torch.Tensor,
        weights: torch.Tensor,
        scaled: torch.Tensor,
    ) -> None:
        """One step of the temperatures along the averaged derivative of the loss."""
        mean = known.mean[indices].float()
        expected = (weights * scaled).sum(dim=1).reshape(2, -1).mean(dim=0)
        derivative = torch.log(mean) + self.radius - expected
        slope = torch.lerp(known.slope[indices].float(), derivative, self.slope_rate)
        tau = known.temperature[indices].float() - self.rate * slope
        known.slope[indices] = slope.to(known.slope.dtype)
        known.temperature[indices] = tau.clamp(self.lowest, self.highest).to(
            known.temperature.dtype
        )
