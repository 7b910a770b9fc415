"""What white-box attacks climb: losses of pixels, and whether the twin is fooled already.

Every loss is per image. Beside its value stands the margin of the victim's own decision on the
twin, so that a search keeps an image that fools it, whatever the loss is.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Problem
from embedkit.evaluate.measurement.victim.heads import (
    CosineHead,
    LinearHead,
    OodHead,
    SearchHead,
)
from embedkit.evaluate.measurement.victim.logits import (
    class_logits,
    class_margins,
    cross_entropy,
    dlr,
    labels_of,
    own_and_best_other,
)
from embedkit.evaluate.measurement.victim.novelty import novelty_of
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.oracle import VictimHead
from embedkit.evaluate.surrogate import TorchEmbedder

__all__ = [
    "LOSSES",
    "Judged",
    "Judgement",
    "LossName",
    "PixelJudge",
    "batches",
    "judge_of",
    "surrogate_of",
    "unit_pixels",
]

LossName = Literal["decision", "cosine", "cross_entropy", "dlr"]
LOSSES: tuple[LossName, ...] = ("decision", "cosine", "cross_entropy", "dlr")
"""``decision``: minus the head's own margin; ``cosine``: 1 - cosine to the clean output."""

Rows = npt.NDArray[np.int64]


class Judged(NamedTuple):
    """What a judge says of pixels.

    Attributes:
        values: What is climbed, (n,).
        margins: At most 0 where the twin is fooled, (n,); no gradient.
    """

    values: Tensor
    margins: Tensor


Judgement = Callable[[Tensor], Judged]
"""From what the twin returns, (n, d), to values and margins."""

PixelJudge = Callable[[Tensor], Judged]
"""From pixels (n, c, h, w) in [0, 1] to values and margins."""


def surrogate_of(problem: Problem) -> TorchEmbedder:
    """The twin of a problem.

    Raises:
        InvalidInput: If there is none.
    """
    if problem.surrogate is None:
        raise InvalidInput("expected a surrogate with gradients, got none")
    return problem.surrogate


def unit_pixels(problem: Problem, rows: Rows) -> Tensor:
    """Clean images in [0, 1], (b, c, h, w), on the twin's device."""
    surrogate = surrogate_of(problem)
    device = surrogate.encoder.mean.device
    return surrogate.encoder.to_unit(torch.tensor(problem.images[rows], device=device))


def batches(count: int, size: int) -> list[Rows]:
    """Row numbers of consecutive batches."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def judge_of(problem: Problem, rows: Rows, loss: LossName) -> PixelJudge:
    """Return the judge of some of a problem's images.

    Args:
        problem: With a surrogate.
        rows: Which images, (b,); pixels come in this order.
        loss: What is climbed.

    Raises:
        InvalidInput: If the head has no such loss.
    """
    surrogate = surrogate_of(problem)
    device = surrogate.encoder.mean.device
    if loss == "cosine":
        with torch.no_grad():
            anchors = surrogate.embed_pixels(unit_pixels(problem, rows))
        margins = _margins(problem.head, rows, device)

        def away(z: Tensor) -> Judged:
            return Judged(1 - cosine_similarity(z, anchors, dim=1), margins(z.detach()))

        judgement: Judgement = away
    elif loss == "decision":
        judgement = _decision(problem.head, rows, device)
    else:
        judgement = _of_logits(problem.head, rows, device, loss)
    return lambda pixels: judgement(surrogate.embed_pixels(pixels))


def _of_logits(head: VictimHead, rows: Rows, device: torch.device, loss: LossName) -> Judgement:
    logits_of = class_logits(head, device)
    labels = torch.tensor(labels_of(head)[rows], device=device)

    def judge(z: Tensor) -> Judged:
        logits, deciding = logits_of(z)
        if loss == "dlr":
            values = dlr(logits, labels)
        elif loss == "cross_entropy":
            values = cross_entropy(logits, labels)
        else:
            smooth_own, smooth_other = own_and_best_other(logits, labels)
            values = smooth_other - smooth_own
        return Judged(values, class_margins(deciding, labels))

    return judge


def _decision(head: VictimHead, rows: Rows, device: torch.device) -> Judgement:
    """Minus the margin of the head's own decision."""
    if isinstance(head, KnnHead | LinearHead):
        return _of_logits(head, rows, device, "decision")
    smooth = _smooth_margin(head, rows, device)
    exact = _margins(head, rows, device)
    return lambda z: Judged(-smooth(z), exact(z.detach()))


def _smooth_margin(
    head: VictimHead, rows: Rows, device: torch.device
) -> Callable[[Tensor], Tensor]:
    if isinstance(head, CosineHead):
        anchors = torch.tensor(head.anchors[rows], device=device)
        return lambda z: cosine_similarity(z, anchors, dim=1) - head.threshold
    if isinstance(head, OodHead):
        novelty = novelty_of(head, device)
        sign = torch.tensor(np.where(head.known[rows], -1.0, 1.0), device=device)
        return lambda z: sign.to(z) * (novelty(z) - head.threshold)
    if isinstance(head, SearchHead):
        return _search_margin(head, rows, device)
    raise InvalidInput(
        f"expected a head whose margin has a gradient, got {type(head).__name__}; "
        "take the loss 'cosine'"
    )


def _search_margin(
    head: SearchHead, rows: Rows, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Similarity of the wanted images minus that of the k nearest others.

    All of the wanted ones must leave and k others must come, so both are soft sums that give
    each of them a gradient.
    """
    gallery = torch.tensor(head.gallery, device=device)
    wanted = torch.tensor(head.wanted[rows], device=device)

    def margin(z: Tensor) -> Tensor:
        cosines = normalize(z, dim=1) @ gallery.T
        own = cosines.gather(1, wanted)
        others = cosines.scatter(1, wanted, -torch.inf).topk(head.k, dim=1).values
        return own.logsumexp(dim=1) - others.mean(dim=1)

    return margin


def _margins(head: VictimHead, rows: Rows, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The head's own margins of what the twin returned, without a gradient."""
    if isinstance(head, KnnHead | LinearHead):
        judge = _of_logits(head, rows, device, "decision")
        return lambda z: judge(z).margins

    def margins(z: Tensor) -> Tensor:
        found = head.margins(z.float().cpu().numpy(), rows)
        return torch.tensor(found, dtype=z.dtype, device=z.device)

    return margins
