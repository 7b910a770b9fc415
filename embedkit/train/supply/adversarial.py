"""Adversarial views: what the encoder as it is now is most easily misled by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch.nn import functional

from embedkit.perturb.adversary import Adversary
from embedkit.train.batch import ImageIndices
from embedkit.train.learner import Learner, Part, Viewed

__all__ = ["Harm", "far_features", "mislead"]

Harm: TypeAlias = Callable[[Viewed, Viewed, ImageIndices], torch.Tensor]
"""What the adversary raises, (m,): from one changed view of m images, the whole views of all
images unchanged, and which of them the m are."""


@torch.no_grad()
def mislead(
    learner: Learner,
    pixels: torch.Tensor,
    view: int,
    adversary: Adversary,
    harm: Harm,
    generator: torch.Generator,
) -> torch.Tensor:
    """Change one view of every image so that the learner as it is takes most harm.

    The learner runs as it will be served: batch norm uses its running statistics and leaves
    them as they are, nothing is dropped, and no parameter gets a gradient. So images do not
    depend on each other, and each process (or each part of a cached batch) sees to its own.

    Args:
        learner: Is asked for gradients in the pixels.
        pixels: Whole views, (v, b, c, h, w) in [0, 1].
        view: Which of them is changed.
        adversary: How far, and how it searches.
        harm: What it raises.
        generator: Source of every random number.

    Returns:
        (b, c, h, w) in [0, 1].
    """
    with _at_rest(learner):
        clean = learner(pixels)

        def network(part: Part) -> Viewed:
            images, start = part.pixels
            rows = part.rows
            if rows is None:
                rows = torch.arange(len(images), device=images.device)

            def loss(changed: torch.Tensor) -> torch.Tensor:
                return harm(learner.encode(Part(changed.unsqueeze(0))), clean, rows)

            found = adversary.find(loss, images, start).flatten(1).unsqueeze(0)
            # Pixels travel in the place of features, so that they are joined and gathered
            # in the same way, whatever the learner's is.
            return Viewed(found, found[:, :, :1], None)

        rows = torch.arange(pixels.shape[1], device=pixels.device)
        start = adversary.start(pixels[view], generator)
        part = Part(torch.stack([pixels[view], start]), rows=rows)
        found = network(part) if learner.way is None else learner.way(network, part)
    return found.features.reshape(pixels[view].shape)


def far_features(view: int) -> Harm:
    """One minus the cosine between an image's features before and after the change."""

    def harm(changed: Viewed, clean: Viewed, rows: ImageIndices) -> torch.Tensor:
        before = clean.features[view, rows].float()
        return 1 - functional.cosine_similarity(changed.features[0].float(), before, dim=1)

    return harm


@contextmanager
def _at_rest(learner: Learner) -> Iterator[None]:
    """The learner as it is served, then every part of it in the mode it was in."""
    modes = {module: module.training for module in learner.modules()}
    learner.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
