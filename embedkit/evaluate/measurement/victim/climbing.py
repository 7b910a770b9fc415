"""What the white-box attacks share: starts keyed by image, and their results as candidates."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from embedkit.evaluate.attack import Found
from embedkit.perturb.gradient import Ascent, Norm, random_start
from embedkit.perturb.randomness import Keys

__all__ = ["found_by", "random_starts"]


def random_starts(
    keys: Keys, restart: int, images: Tensor, norm: Norm, radius: float
) -> Tensor:
    """One random start per image, from its own key, so that batches do not matter.

    Args:
        keys: One per image, (b,).
        restart: Number of the restart.
        images: Clean pixels, (b, c, h, w) in [0, 1].
        norm: Norm of the ball.
        radius: In pixel units of [0, 1].
    """
    starts = []
    for key in keys:
        generator = torch.Generator().manual_seed((int(key) + restart) % 2**63)
        starts.append(random_start((1, *images.shape[1:]), norm, radius, generator))
    return torch.cat(starts).to(images)


def found_by(parts: Iterable[Ascent]) -> Found:
    """Return what the searches of all batches found, as an attack returns it."""
    ascents = list(parts)
    pixels = [a.pixels.permute(0, 2, 3, 1).cpu().numpy() for a in ascents]
    norms = [a.gradient_norms.double().cpu().numpy() for a in ascents]
    return Found(np.concatenate(pixels) * 255, np.concatenate(norms))
