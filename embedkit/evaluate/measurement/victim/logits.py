"""Scores of classes with gradients, and the losses that are made from them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.victim.heads import LinearHead
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.oracle import VictimHead

__all__ = [
    "class_logits",
    "class_margins",
    "cross_entropy",
    "dlr",
    "labels_of",
    "own_and_best_other",
    "targeted_dlr",
]

_SMALL = 1e-12
Logits = Callable[[Tensor], tuple[Tensor, Tensor]]


def class_logits(head: VictimHead, device: torch.device) -> Logits:
    """Return class scores with gradients, and those whose largest is the decision, (n, c) each.

    Of a kNN head the first are log votes of half of k neighbours for each class, so that every
    class, near or far, has a gradient. Half of k, because where the decision turns the k
    neighbours are shared between two classes: on untrained and trained encoders this fools more
    images than the exact vote, k neighbours of each class, or the vote of the whole bank.

    Raises:
        InvalidInput: If the head has no classes.
    """
    if isinstance(head, LinearHead):
        weight = torch.tensor(head.head.weight, device=device)
        bias = torch.tensor(head.head.bias, device=device)

        def linear(z: Tensor) -> tuple[Tensor, Tensor]:
            logits = z @ weight.T + bias
            return logits, logits.detach()

        return linear
    if isinstance(head, KnnHead):
        return _votes(head, device)
    raise InvalidInput(
        f"expected a head with classes (KnnHead or LinearHead), got {type(head).__name__}; "
        "take the loss 'decision'"
    )


def _votes(head: KnnHead, device: torch.device) -> Logits:
    members = [
        torch.tensor(head.bank[head.bank_labels == c], device=device)
        for c in range(head.classes)
    ]
    half, k = (head.k + 1) // 2, min(head.k, len(head.bank))

    def nearest(unit: Tensor, bank: Tensor) -> Tensor:
        """Logits of the k nearest of one class, best first; -inf where it has fewer."""
        best = (unit @ bank.T / head.temperature).topk(min(k, len(bank)), dim=1).values
        return torch.nn.functional.pad(best, (0, k - best.shape[1]), value=-torch.inf)

    def votes(z: Tensor) -> tuple[Tensor, Tensor]:
        unit = normalize(z, dim=1)
        each = torch.stack([nearest(unit, bank) for bank in members], dim=1)
        with torch.no_grad():
            # The k nearest of all are among the k nearest of each class.
            last = each.flatten(1).topk(k, dim=1).values[:, -1, None, None]
            exact = each.masked_fill(each < last, -torch.inf).logsumexp(dim=2)
        smooth = each[:, :, :half]
        empty = smooth.isneginf().all(dim=2)
        # logsumexp of nothing has no gradient, not even one that is masked later.
        filled = smooth.masked_fill(empty[:, :, None], 0.0).logsumexp(dim=2)
        return filled.masked_fill(empty, -torch.inf), exact

    return votes


def class_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other one, (n,); two that are infinite are equal."""
    own, other = own_and_best_other(logits, labels)
    return torch.where(own == other, 0.0, own - other)


def labels_of(head: VictimHead) -> npt.NDArray[np.int64]:
    """The classes that attacked images must keep.

    Raises:
        InvalidInput: If the head has no classes.
    """
    if isinstance(head, KnnHead | LinearHead):
        return head.labels
    raise InvalidInput(f"expected a head with classes, got {type(head).__name__}")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log probability of the label, (n,), as log(1 + sum_j exp(l_j - l_y)).

    In this form nothing cancels: of an image whose probability is 1 to the last bit the usual
    form has rounding errors for a gradient, and an attack goes nowhere.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
    return torch.nn.functional.softplus(others - own)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6), (n,); needs c >= 3.

    -(l_y - max_{j != y} l_j) / (l_(1) - l_(3)), where l_(i) is the i-th largest logit.
    """
    ordered = logits.sort(dim=1, descending=True).values
    own, other = own_and_best_other(logits, labels)
    return (other - own) / (ordered[:, 0] - ordered[:, 2] + _SMALL)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted form (eq. 7), (n,); needs c >= 4.

    -(l_y - l_t) / (l_(1) - (l_(3) + l_(4)) / 2).
    """
    ordered = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    wanted = logits.gather(1, targets[:, None])[:, 0]
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + _SMALL
    return (wanted - own) / spread


def own_and_best_other(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of the label, and the largest of the others, (n,) each."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return own, others
