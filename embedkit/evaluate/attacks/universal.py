"""One perturbation for all images, against the embedding itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import ball_of, check_counts
from embedkit.evaluate.measurement.victim.losses import surrogate_of, unit_pixels
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.perturb.gradient import lengths_of, project, random_start, steepest

__all__ = ["Universal"]

_TEMPERATURE = 0.1
"""Of the contrast; AdvEncoder's loss is that of contrastive pre-training."""

Band = Literal["all", "high", "low"]


@attacks.register("universal")
@dataclass(frozen=True)
class Universal:
    """Universal perturbation of an encoder, after AdvEncoder (Zhou et al. 2023).

    The same change is added to every image. It is learnt from a share of the images, without
    labels, by pushing their embeddings away from the clean ones; success on the others shows
    whether it is universal. AdvEncoder trains a generator of such changes; here the change
    itself climbs, which is the same for one encoder and needs no second network.

    Attributes:
        steps: Gradient steps, each on a batch.
        loss: ``cosine``: mean of 1 - cosine to the own clean embedding. ``contrast``: minus the
            log likelihood of the own clean embedding among those of the batch.
        band: Frequencies that the change may have: ``high`` ones are what AdvEncoder aims at.
        cutoff: Radius of the low band as a share of the highest frequency, in (0, 1).
        share: Of the images that it is learnt from, in (0, 1].
        batch: Images per step.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    steps: int = 100
    loss: Literal["cosine", "contrast"] = "cosine"
    band: Band = "all"
    cutoff: float = 0.25
    share: float = 0.5
    batch: int = 64

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, batch=self.batch)
        if self.loss not in ("cosine", "contrast") or self.band not in ("all", "high", "low"):
            raise InvalidInput(
                "expected the loss 'cosine' or 'contrast' and the band 'all', 'high' or 'low', "
                f"got {self.loss!r} and {self.band!r}"
            )
        if not (0 < self.cutoff < 1 and 0 < self.share <= 1):
            raise InvalidInput(
                f"expected a cutoff in (0, 1) and a share in (0, 1], got {self.cutoff} and "
                f"{self.share}"
            )

    def run(self, problem: Problem) -> Found:
        """Learn the change on the surrogate and add it to every image."""
        order = np.argsort(problem.keys, kind="stable")
        learnt = order[: max(1, round(self.share * len(order)))]
        delta, norm = self._learn(problem, learnt)
        change = delta.permute(0, 2, 3, 1).cpu().numpy() * 255
        moved = (problem.images + change).astype(np.float32)
        return Found(moved, np.full(len(moved), norm))

    def _learn(
        self, problem: Problem, learnt: "np.typing.NDArray[np.intp]"
    ) -> tuple[Tensor, float]:
        """The change, (1, c, h, w) in units of [0, 1], and the largest gradient met."""
        surrogate, (norm, radius) = surrogate_of(problem), ball_of(problem)
        images = unit_pixels(problem, learnt)
        with torch.no_grad():
            clean = normalize(surrogate.embed_pixels(images), dim=1)
        generator = torch.Generator().manual_seed(int(problem.keys[learnt[0]]) % 2**63)
        shape = (1, *images.shape[1:])
        delta = random_start(shape, norm, radius, generator).to(images)
        velocity, largest = torch.zeros_like(delta), 0.0
        for step in range(self.steps):
            rows = torch.randperm(len(images), generator=generator)[: self.batch]
            leaf = delta.clone().requires_grad_(True)
            loss = self._loss(surrogate, images[rows], clean[rows], leaf)
            (gradient,) = torch.autograd.grad(loss, leaf)
            size = lengths_of(gradient)
            largest = max(largest, float(size))
            velocity = 0.9 * velocity + gradient / size.clamp_min(1e-12)
            length = radius * 0.2 * (1 - step / self.steps)
            moved = self._filtered(delta + length * steepest(velocity, norm))
            delta = project(moved, norm, radius)
        return delta, largest

    def _loss(
        self, surrogate: TorchEmbedder, images: Tensor, clean: Tensor, delta: Tensor
    ) -> Tensor:
        z = normalize(surrogate.embed_pixels((images + delta).clamp(0, 1)), dim=1)
        if self.loss == "cosine":
            return (1 - cosine_similarity(z, clean, dim=1)).mean()
        own = torch.arange(len(z), device=z.device)
        return torch.nn.functional.cross_entropy(z @ clean.T / _TEMPERATURE, own)

    def _filtered(self, delta: Tensor) -> Tensor:
        """The change with the frequencies of its band alone."""
        if self.band == "all":
            return delta
        height, width = delta.shape[2:]
        rows = torch.fft.fftfreq(height, device=delta.device)[:, None] / 0.5
        columns = torch.fft.fftfreq(width, device=delta.device)[None] / 0.5
        is_low = (rows**2 + columns**2).sqrt() <= self.cutoff
        kept = is_low if self.band == "low" else ~is_low
        filtered: Tensor = torch.fft.ifft2(torch.fft.fft2(delta) * kept).real
        return filtered
