"""No-box: neither gradients nor queries, but a few images of the same kind."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import ball_of, check_counts, random_starts
from embedkit.evaluate.measurement.victim.reconstruction import (
    AutoEncoder,
    Mechanism,
    adversarial_loss,
    lesson_of,
    train_on,
)
from embedkit.perturb.gradient import Ascent, Schedule, ascend

__all__ = ["Group", "NoBox", "groups_of"]

_TRAVEL = 4.0
"""Radii that all steps of a search go together: far enough to reach any edge of the ball."""

_DEPTH = 2
"""Layers of the encoder whose output is drawn out: the first convolution and its norm."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Images that one auto-encoder is trained on.

    Attributes:
        rows: Which, (m,).
        classes: 0 or 1, (m,); all alike where nothing is known of classes.
        attacked: Which of them it attacks, (m,) bool; the others only keep them company.
    """

    rows: Rows
    classes: Rows
    attacked: npt.NDArray[np.bool_]


@attacks.register("no_box")
@dataclass(frozen=True)
class NoBox:
    """Transfer from auto-encoders trained on tens of images (Li, Guo and Chen 2020).

    The attacker has the images alone and their classes. They are attacked in groups of
    two classes; of each group an auto-encoder learns to make, from any image, one and the same
    prototype of its class (in several decoders, each with prototypes of its own). The change
    that makes it reconstruct the other class' prototype is found by gradient steps (their
    equation 3), and then drawn out along the way that it moved the encoder's output
    (intermediate level attack, Huang et al. 2019). The model is asked nothing but whether that
    fools it, by the final caller.

    Where the attacked decision has no classes, or there is one, the auto-encoder reconstructs
    each image from a turned copy, and the change is to make it look like another. What happens
    to an image depends on the others of its group. Theirs are 15,000 steps at 224 pixels.

    Attributes:
        mechanism: ``prototypes``; ``rotation`` or ``jigsaw`` never use classes.
        group: Images per auto-encoder, half of each class; at least 2.
        decoders: Of prototypes.
        width: Channels of the auto-encoder's first layer.
        training: Optimiser steps of each auto-encoder.
        steps: Gradient steps of either search, 4 radii long together.
        sharpness: Of the adversarial loss, per mean squared distance of pixels in [0, 1].

    Raises:
        InvalidInput: If a setting is out of range.
    """

    mechanism: Mechanism = "prototypes"
    group: int = 20
    decoders: int = 5
    width: int = 16
    training: int = 100
    steps: int = 40
    sharpness: float = 20.0

    needs: ClassVar[frozenset[Need]] = frozenset()
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.group < 2:
            raise InvalidInput(f"expected group >= 2, got {self.group}")
        check_counts(
            decoders=self.decoders,
            width=self.width,
            training=self.training,
            steps=self.steps,
        )
        if self.mechanism not in ("prototypes", "rotation", "jigsaw"):
            raise InvalidInput(
                "expected the mechanism 'prototypes', 'rotation' or 'jigsaw', got "
                f"{self.mechanism!r}"
            )
        if not self.sharpness > 0:
            raise InvalidInput(f"expected sharpness > 0, got {self.sharpness}")

    def run(self, problem: Problem) -> Found:
        """Train on each group and attack its images."""
        labels = getattr(problem.head, "labels", None)
        classes = np.zeros(len(problem.images), np.int64)
        if self.mechanism == "prototypes" and labels is not None:
            classes = np.asarray(labels)
        candidates = problem.images.astype(np.float32)
        for part in groups_of(classes, problem.keys, self.group):
            found = self._attacked(problem, part).permute(0, 2, 3, 1).numpy() * 255
            candidates[part.rows[part.attacked]] = found[part.attacked]
        return Found(candidates)

    def _attacked(self, problem: Problem, part: Group) -> Tensor:
        """Attacked pixels of all images of a group, (m, c, h, w) in [0, 1]."""
        (norm, radius), keys = ball_of(problem), problem.keys[part.rows]
        pixels = torch.tensor(problem.images[part.rows]).permute(0, 3, 1, 2).float() / 255
        generator = torch.Generator().manual_seed(int(np.bitwise_xor.reduce(keys)) % 2**63)
        known = len(np.unique(part.classes)) == 2
        decoders = self.decoders if known else 1
        model = AutoEncoder(pixels.shape[1], decoders, self.width, generator)
        lesson = lesson_of(pixels, torch.tensor(part.classes), decoders, generator)
        mechanism: Mechanism = "rotation" if self.mechanism == "prototypes" else self.mechanism
        mechanism = "prototypes" if known else mechanism
        train_on(model, pixels, lesson, mechanism, self.training, generator)
        rows = torch.arange(len(pixels))
        step = Schedule(self.steps, _TRAVEL * radius / self.steps, keep="last")
        start = random_starts(keys, 0, pixels, norm, radius)

        def away(moved: Tensor) -> Tensor:
            return adversarial_loss(model(moved), lesson, rows, self.sharpness)

        first: Ascent = ascend(away, pixels, start, norm, radius, step)
        shallow = model.encoder[:_DEPTH]
        clean = shallow(pixels).flatten(1)
        way = shallow(first.pixels).flatten(1) - clean

        def along(moved: Tensor) -> Tensor:
            projection: Tensor = ((shallow(moved).flatten(1) - clean) * way).sum(dim=1)
            return projection

        return ascend(along, pixels, first.pixels - pixels, norm, radius, step).pixels


def groups_of(classes: Rows, keys: npt.NDArray[np.uint64], size: int) -> list[Group]:
    """Split images into groups of two classes, about half of each.

    Each class is cut into parts of half a group, in the order of the keys, and the largest
    parts of two classes are paired until none is left; the last of a class that has no
    other to be paired with is given one again. With a single class groups are cut alone.

    Args:
        classes: Of every image, (n,).
        keys: Random keys of the images, (n,).
        size: Most images in a group, at least 2.
    """
    order = np.argsort(keys, kind="stable")
    present = np.unique(classes)
    if len(present) == 1:
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [Group(p, np.zeros(len(p), np.int64), np.ones(len(p), bool)) for p in parts]
    half = size // 2
    queues: dict[int, list[Rows]] = {}
    for one in present:
        members = order[classes[order] == one]
        queues[int(one)] = [
            members[start : start + half] for start in range(0, len(members), half)
        ]
    firsts = {one: parts[0] for one, parts in queues.items()}
    found = []
    while any(queues.values()):
        # The classes with the most images left, so that no class remains alone for long.
        ranked = sorted(queues, key=lambda one: (-sum(map(len, queues[one])), one))
        one, other = ranked[:2]
        left = queues[one].pop(0)
        again = not queues[other]
        right = firsts[other] if again else queues[other].pop(0)
        found.append(
            Group(
                np.concatenate([left, right]),
                np.repeat([0, 1], [len(left), len(right)]),
                np.repeat([True, not again], [len(left), len(right)]),
            )
        )
    return found
