"""Projected gradient descent in feature space, on the differentiable twin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.oracle import KnnHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.perturb.gradient import (
    Ascent,
    Norm,
    PixelLoss,
    Rule,
    Schedule,
    ascend,
    random_start,
)

__all__ = ["PGD"]


@attacks.register("pgd")
@dataclass(frozen=True)
class PGD:
    """White-box PGD (Madry 2018) from a random start; the best iterate is kept.

    The start is always random: at the clean image the distance to its own embedding has a zero
    gradient, and a search from there never moves.

    Attributes:
        steps: Gradient steps per start; 1 with ``relative_step`` 2 is FGSM.
        loss: ``cosine`` moves away from the image's own clean embedding and needs no labels;
            ``class`` lowers the kNN vote of the label against the strongest other class.
        relative_step: Step over radius; 0 chooses 2.5 / steps.
        rule: ``steepest`` or ``momentum``.
        restarts: Independent starts; the best over all is kept.
        batch: Images that climb together.

    Raises:
        InvalidInput: If the steps cannot cross the ball (steps * relative_step < 2), which
            makes an attack that looks strong and is not.
    """

    steps: int = 40
    loss: Literal["cosine", "class"] = "cosine"
    relative_step: float = 0.0
    rule: Rule = "steepest"
    restarts: int = 1
    batch: int = 256

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.batch < 1:
            raise InvalidInput(
                f"expected steps, restarts and batch >= 1, got {self.steps}, {self.restarts}, "
                f"{self.batch}"
            )
        if self.loss not in ("cosine", "class"):
            raise InvalidInput(f"expected the loss 'cosine' or 'class', got {self.loss!r}")
        if self.rule not in ("steepest", "momentum"):
            raise InvalidInput(f"expected the rule 'steepest' or 'momentum', got {self.rule!r}")
        if self.steps * self._relative_step < 2:
            raise InvalidInput(
                f"expected steps * relative_step >= 2 so that the search can cross the ball, "
                f"got {self.steps} * {self._relative_step}"
            )

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        if problem.surrogate is None:
            raise InvalidInput("expected a surrogate with gradients, got none")
        count = len(problem.images)
        parts = [
            self._climb(problem, problem.surrogate, np.arange(s, min(s + self.batch, count)))
            for s in range(0, count, self.batch)
        ]
        return Found(
            np.concatenate([p.pixels.permute(0, 2, 3, 1).cpu().numpy() for p in parts]) * 255,
            np.concatenate([p.gradient_norms.double().cpu().numpy() for p in parts]),
        )

    def _climb(
        self, problem: Problem, surrogate: TorchEmbedder, rows: npt.NDArray[np.int64]
    ) -> Ascent:
        """The best iterate over all restarts, for the images of one batch."""
        device = surrogate.encoder.mean.device
        images = surrogate.encoder.to_unit(torch.tensor(problem.images[rows], device=device))
        norm, radius = problem.threat.norm, problem.threat.radius_255 / 255
        schedule = Schedule(self.steps, self._relative_step * radius, self.rule)
        loss = self._pixel_loss(problem, surrogate, images, rows)
        best: Ascent | None = None
        for restart in range(self.restarts):
            start = _start(problem.keys[rows], restart, images, norm, radius)
            found = ascend(loss, images, start, norm, radius, schedule)
            best = found if best is None else best.better(found)
        assert best is not None
        return best

    def _pixel_loss(
        self,
        problem: Problem,
        surrogate: TorchEmbedder,
        images: Tensor,
        rows: npt.NDArray[np.int64],
    ) -> PixelLoss:
        if self.loss == "cosine":
            with torch.no_grad():
                anchors = surrogate.embed_pixels(images)
            return lambda pixels: 1 - (surrogate.embed_pixels(pixels) * anchors).sum(dim=1)
        if not isinstance(problem.head, KnnHead):
            raise InvalidInput(
                f"expected a kNN head for the loss 'class', got {type(problem.head).__name__}"
            )
        vote = _vote_loss(problem.head, rows, images.device)
        return lambda pixels: vote(surrogate.embed_pixels(pixels))

    @property
    def _relative_step(self) -> float:
        return self.relative_step or 2.5 / self.steps


def _vote_loss(
    head: KnnHead, rows: npt.NDArray[np.int64], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Log vote of the strongest other class minus the label's, from half of k for each class.

    Neighbours are taken class by class and not over all, so that the vote of every class, near
    or far, has a gradient. Half of k, because where the decision turns the k neighbours are
    shared between two classes. On untrained and trained encoders this fools more images than
    the exact vote, k neighbours of each class, or the vote of the whole bank.
    """
    neighbours = (head.k + 1) // 2
    labels = torch.tensor(head.labels[rows], device=device)[:, None]
    own = labels == torch.arange(head.classes, device=device)
    members = [
        torch.tensor(head.bank[head.bank_labels == c], device=device)
        for c in range(head.classes)
    ]

    def vote(embeddings: Tensor, bank: Tensor) -> Tensor:
        if not len(bank):
            return torch.full_like(embeddings[:, 0], -torch.inf)
        logits = embeddings @ bank.T / head.temperature
        return logits.topk(min(neighbours, len(bank)), dim=1).values.logsumexp(dim=1)

    def loss(embeddings: Tensor) -> Tensor:
        votes = torch.stack([vote(embeddings, bank) for bank in members], dim=1)
        others = votes.masked_fill(own, -torch.inf).amax(dim=1)
        return others - votes.gather(1, labels)[:, 0]

    return loss


def _start(
    keys: npt.NDArray[np.uint64], restart: int, images: Tensor, norm: Norm, radius: float
) -> Tensor:
    """One random start per image, from its own key, so that batches do not matter."""
    starts = []
    for key in keys:
        generator = torch.Generator().manual_seed((int(key) + restart) % 2**63)
        starts.append(random_start((1, *images.shape[1:]), norm, radius, generator))
    return torch.cat(starts).to(images)
