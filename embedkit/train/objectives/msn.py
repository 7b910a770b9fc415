"""MSN: Assran et al., Masked Siamese Networks for Label-Efficient Learning, ECCV 2022."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    built,
    check_views,
    exact_product,
    hide_scattered,
    require,
    rising_momentum,
    soft_cross_entropy,
    unit,
)

__all__ = ["MSN"]


class _Prototypes(nn.Module):
    """Learned directions that projections are assigned to."""

    def __init__(self, dim: int, prototypes: int) -> None:
        super().__init__()
        # Short vectors: steps of the usual size turn long ones too little to learn anything.
        self.weight = nn.Parameter(unit(torch.randn(prototypes, dim)))

    def forward(self, projections: torch.Tensor) -> torch.Tensor:
        """Cosines with every prototype, (..., k) float32."""
        flat = unit(projections).flatten(0, -2)
        cosines = exact_product(flat, unit(self.weight))
        return cosines.reshape(*projections.shape[:-1], len(self.weight))


@objectives.register("msn")
@dataclass(frozen=True)
class MSN:
    """Give a view with hidden patches the prototypes of the other view as a whole (eq. 1).

    The student is shown some of the patches (random masks) and small crops (focal masks), the
    averaged teacher all of the other view. The entropy of the mean prediction is raised, so
    that all prototypes are used. Needs an encoder with patches.

    Attributes:
        prototypes: Directions that are compared with (K).
        temperature: The student's, above 0 (tau).
        teacher_temperature: The teacher's, above 0 and below the student's, which sharpens
            (tau^+).
        spread: Weight of the entropy of the mean prediction, at least 0 (lambda).
        hidden: Share of patches that the student is not shown, in (0, 1).
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1];
            it rises to 1 along a cosine.
    """

    prototypes: int = 256
    temperature: float = 0.1
    teacher_temperature: float = 0.025
    spread: float = 1.0
    hidden: float = 0.3
    momentum: float = 0.99

    needs = frozenset({"projections", "teacher", "mask", "local"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        temperatures = (self.temperature, self.teacher_temperature)
        require(min(temperatures) > 0, "temperatures above 0", temperatures)
        require(self.prototypes >= 2, "at least 2 prototypes", self.prototypes)
        require(0 < self.hidden < 1, "hidden in (0, 1)", self.hidden)
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)
        require(self.spread >= 0, "a spread of at least 0", self.spread)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The prototypes."""
        return _Prototypes(sizes.dim, self.prototypes)

    def teacher_momentum(self, progress: float) -> float:
        """BYOL's schedule."""
        return rising_momentum(self.momentum, progress)

    def hide(
        self, grid: tuple[int, int], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Patches drawn evenly; see ``Masking``."""
        return hide_scattered(grid, count, self.hidden, generator)

    def mask_token(self, module: nn.Module) -> torch.Tensor | None:
        """Hidden patches are dropped, which also saves their time."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy less the entropy of the mean prediction.

        Args:
            batch: Two views of student (masked) and teacher (whole), (2, b, d), b >= 2, small
                crops (l, b, d), and the prototypes.

        Returns:
            Of any sign: at least minus ``spread * log(k)``.

        Raises:
            InvalidInput: If something that it needs is missing, there are not two views, or
                fewer than two images.
        """
        check_views(batch.projections, views=2, name="msn")
        module = built(batch, _Prototypes)
        supplied(batch.mask, "mask")
        with torch.no_grad():
            cosines = module(supplied(batch.teacher, "teacher"))
            targets = torch.softmax(cosines / self.teacher_temperature, dim=-1)
        anchors = [module(batch.projections) / self.temperature]
        aims = [targets.flip(0)]
        small = module(supplied(batch.local, "local")) / self.temperature
        for target in targets:
            anchors.append(small)
            aims.append(target.expand_as(small))
        logits, aim = torch.cat(anchors), torch.cat(aims)
        mean = torch.softmax(logits, dim=-1).mean(dim=(0, 1))
        entropy = -torch.xlogy(mean, mean).sum()
        return Loss.sum(
            assignment=soft_cross_entropy(logits, aim).mean(), spread=-self.spread * entropy
        )
