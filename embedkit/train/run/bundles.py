"""Finished bundles that a run learns from: each embeds all training images once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from embedkit.errors import InvalidInput
from embedkit.train.images import TrainingImages
from embedkit.train.objective import Distilling, Objective
from embedkit.types import Embedder, Embeddings

__all__ = ["LoadBundle", "embed_all", "embed_pixels"]

_AT_A_TIME = 1024

LoadBundle = Callable[[str], Embedder]
"""Opens a bundle folder, in a session or as a twin."""


def embed_all(
    images: TrainingImages, objective: Objective, load_bundle: LoadBundle | None
) -> TrainingImages:
    """Return the images with what the objective's bundles say of them as they are.

    Args:
        images: All training images.
        objective: Names its bundles if it needs embeddings.
        load_bundle: Opens them.

    Raises:
        InvalidInput: If no bundle is named, or nothing is there to open it with.
        NotFound: If there is no such bundle.
    """
    if "embeddings" not in objective.needs or not isinstance(objective, Distilling):
        return images
    if not objective.bundles or not all(objective.bundles):
        raise InvalidInput(
            "expected the folder of a finished model to learn from, got none; set it under "
            "[objective], for example --set objective.teacher=models/digits/1"
        )
    if load_bundle is None:
        raise InvalidInput(
            "expected load_bundle for an objective that learns from a finished model, "
            "got none; pass load_bundle=embedkit.load"
        )
    embedders = [load_bundle(bundle) for bundle in objective.bundles]
    device = images.images.device
    return replace(
        images,
        embeddings=tuple(
            torch.from_numpy(embed_pixels(images, e)).to(device) for e in embedders
        ),
        embedder_digests=tuple(e.digest for e in embedders),
    )


def embed_pixels(images: TrainingImages, embedder: Embedder) -> Embeddings:
    """What a model says of all images as they are, a few at a time."""
    everything = torch.arange(len(images), device=images.images.device)
    parts = torch.split(everything, _AT_A_TIME)
    return np.concatenate([embedder.embed(images.images[p].cpu().numpy()) for p in parts])
