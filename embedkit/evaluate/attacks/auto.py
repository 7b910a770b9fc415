"""Several parameter-free attacks in turn: the worst case of each image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from embedkit.evaluate.attack import Attack, Need, attacks
from embedkit.evaluate.measurement.victim.climbing import check_counts
from embedkit.evaluate.measurement.victim.heads import LinearHead
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.oracle import VictimHead

__all__ = ["Auto"]

_TARGETS = 9
_CLASSES_FOR_TARGETS = 4


@attacks.register("auto")
@dataclass(frozen=True)
class Auto:
    """Ensemble after AutoAttack (Croce and Hein 2020), each on what is still standing.

    Against classes: APGD on the cross-entropy, targeted APGD on the difference of logits ratio
    (untargeted below 4 classes), APGD on the decision's own margin, and Square by queries.
    Against other decisions the second and first are replaced by APGD away from the image's own
    embedding. FAB, the remaining part of AutoAttack, minimises distances; its place is taken by
    APGD on the margin.

    Attributes:
        steps: Gradient steps of each APGD, per target.
        queries: Of Square, per image.

    Raises:
        InvalidInput: If a setting is below 1.
    """

    steps: int = 100
    queries: int = 5000

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient", "scores"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, queries=self.queries)

    def members(self, head: VictimHead, norm: str) -> tuple[Attack, ...]:
        """The attacks against such a head, in their order; those that know the norm."""
        make: Callable[..., Any] = attacks.get
        margin = make("apgd_decision")(steps=self.steps)
        classes = _classes(head)
        if classes == 0:
            chosen = [margin, make("feature_away")(steps=self.steps)]
        else:
            chosen = [make("apgd_ce")(steps=self.steps)]
            if classes >= _CLASSES_FOR_TARGETS - 1:
                targets = min(_TARGETS, classes - 1) if classes >= _CLASSES_FOR_TARGETS else 0
                chosen.append(make("apgd_dlr")(steps=self.steps, targets=targets))
            chosen.append(margin)
        chosen.append(make("square")(queries=self.queries))
        return tuple(member for member in chosen if norm in member.norms)


def _classes(head: VictimHead) -> int:
    """Classes among which a head decides; 0 for one without."""
    if isinstance(head, KnnHead):
        return head.classes
    return len(head.head.bias) if isinstance(head, LinearHead) else 0
