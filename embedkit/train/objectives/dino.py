"""DINO: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    built,
    check_views,
    exact_product,
    require,
    rising_momentum,
    soft_cross_entropy,
    unit,
)

__all__ = ["DINO"]


class _Prototypes(nn.Module):
    """Directions that projections are compared with, and the mean of what the teacher said."""

    centre: torch.Tensor

    def __init__(self, dim: int, prototypes: int) -> None:
        super().__init__()
        # Short vectors: steps of the usual size turn long ones too little to learn anything.
        self.weight = nn.Parameter(unit(torch.randn(prototypes, dim)))
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(self, projections: torch.Tensor) -> torch.Tensor:
        """Cosines with every prototype, (..., k) float32."""
        flat = unit(projections).flatten(0, -2)
        cosines = exact_product(flat, unit(self.weight))
        return cosines.reshape(*projections.shape[:-1], len(self.weight))


@objectives.register("dino")
@dataclass(frozen=True)
class DINO:
    """Give every view the averaged network's distribution over prototypes (eq. 1 to 4).

    The teacher sees the two whole views; its distribution is centred, so that no prototype
    wins for all images, and sharpened, so that not all are equal. The student predicts it from
    the other view and from small crops.

    Short runs want a deep head, few prototypes and a quick teacher. After 312 steps (8 epochs
    of 10,000 Fashion-MNIST images, tiny ResNet, one seed; kNN of 10,000 further training
    images) 128 prototypes, a momentum of 0.9 and a head of 512-512-256 gave 0.781, the same
    with a head of 256-128 0.755 or less. A teacher as soft as the student learned nothing
    (0.707, the loss at ``log(prototypes)``), a sharp one (0.02, 1024 prototypes) trivial
    groups (0.700).

    Attributes:
        prototypes: Outputs of the head (K).
        temperature: The student's, above 0 (tau_s).
        teacher_temperature: The teacher's after the warm-up, above 0, below the student's.
        warmup: Share of the run over which the teacher's temperature rises from 0.04.
        centre_momentum: Share of the old centre kept per step, in [0, 1] (m).
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1];
            it rises to 1 along a cosine (lambda).
    """

    prototypes: int = 1024
    temperature: float = 0.1
    teacher_temperature: float = 0.07
    warmup: float = 0.3
    centre_momentum: float = 0.9
    momentum: float = 0.99

    needs = frozenset({"projections", "teacher", "teacher_module", "local"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        temperatures = (self.temperature, self.teacher_temperature)
        require(min(temperatures) > 0, "temperatures above 0", temperatures)
        require(self.prototypes >= 2, "at least 2 prototypes", self.prototypes)
        shares = (self.warmup, self.centre_momentum, self.momentum)
        require(all(0 <= s <= 1 for s in shares), "warmup and momenta in [0, 1]", shares)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The prototypes and the centre."""
        return _Prototypes(sizes.dim, self.prototypes)

    def teacher_momentum(self, progress: float) -> float:
        """BYOL's schedule."""
        return rising_momentum(self.momentum, progress)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy over pairs of a teacher's and another student's view.

        Args:
            batch: Two views of student and teacher, (2, b, d), b >= 2, small crops (l, b, d),
                the prototypes and the teacher's.

        Returns:
            At least 0; ``log(k)`` when nothing is told apart.

        Raises:
            InvalidInput: If something that it needs is missing, there are not two views, or
                fewer than two images.
        """
        check_views(batch.projections, views=2, name="dino")
        module = built(batch, _Prototypes)
        taught = supplied(batch.teacher_module, "teacher_module")
        with torch.no_grad():
            logits = taught(supplied(batch.teacher, "teacher"))
            targets = torch.softmax((logits - module.centre) / self._sharpness(batch), dim=-1)
            # Equation 4, after the old centre was used.
            mean = logits.flatten(0, 1).mean(dim=0).to(module.centre.dtype)
            module.centre.lerp_(mean, 1 - self.centre_momentum)
        whole = module(batch.projections) / self.temperature
        pairs = [soft_cross_entropy(whole, targets.flip(0)).mean(dim=1)]
        small = module(supplied(batch.local, "local")) / self.temperature
        pairs += [soft_cross_entropy(small, target).mean(dim=1) for target in targets]
        return Loss.sum(distillation=torch.cat(pairs).mean())

    def _sharpness(self, batch: Batch) -> float:
        """The teacher's temperature, section 3.2: linear from 0.04 to its final value."""
        start = min(0.04, self.teacher_temperature)
        risen = min(1.0, batch.progress / self.warmup) if self.warmup else 1.0
        return start + (self.teacher_temperature - start) * risen
