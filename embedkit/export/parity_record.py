"""The parity record of a bundle: torch against onnxruntime, on easy and on hard inputs."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch

from embedkit.errors import ParityFailed
from embedkit.export.hard_inputs import patterns, search
from embedkit.runtime.parity import BATCH_SIZES, Parity, measure_gaps
from embedkit.types import Embedder, Images

__all__ = ["PARITY_LIMITS", "Effort", "measure_parity"]

PARITY_LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "int8": 5e-2}
"""Largest accepted difference of one coordinate of an embedding, by precision."""

# Scales come from real images, so nothing is promised where activations leave their range.
_LIMITED = {"int8": ("real",)}

_WAYS_OUT = {
    "fp16": "; leave fp16 out of --precision",
    "int8": "; give other images with --calibration, or leave int8 out of --precision",
}

# What all comparisons of one export may cost: some seconds on two cores.
BUDGET_FLOPS = 2e11


@dataclass(frozen=True)
class Effort:
    """How many images are compared.

    Attributes:
        images: Real images, at most; each is embedded once per batch size on either side.
        extreme: Extreme images, at most.
        steps: Rounds of the search, of 64 images each.
    """

    images: int
    extreme: int
    steps: int

    @classmethod
    def within_budget(cls, flops_per_image: int) -> "Effort":
        """As much as fits into some seconds, at least 8 images of each kind and one round."""
        affordable = int(BUDGET_FLOPS / max(flops_per_image, 1))
        images = min(max(affordable // (4 * len(BATCH_SIZES)), 8), 256)
        return cls(images, min(images, 32), min(max(affordable // (4 * 64), 1), 40))


def measure_parity(
    reference: Embedder,
    candidate: Embedder,
    real: Images,
    *,
    effort: Effort,
    precision: str = "fp32",
    seed: int = 0,
) -> dict[str, object]:
    """Compare both on real, extreme and searched images, in batches of 1, 2, 3, 8 and 64.

    Args:
        reference: The torch encoder.
        candidate: The exported graph in onnxruntime.
        real: (n, h, w, c) uint8 at the model's size, n >= 1.
        effort: How many images and how long a search.
        precision: Which limit counts.
        seed: Chooses images and the search's changes.

    Returns:
        The content of ``parity.json``.

    Raises:
        ParityFailed: If one coordinate differs by more than ``PARITY_LIMITS[precision]``; in
            int8 on a real image, for the others are outside its range.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(real))[: effort.images]
    extreme = patterns(real.shape[1:], rng)
    spread = np.linspace(0, len(extreme) - 1, min(effort.extreme, len(extreme))).astype(int)
    sets = {"real": real[np.sort(chosen)], "extreme": extreme[spread]}
    start = np.concatenate([sets["real"], sets["extreme"]])
    found = search(reference, candidate, start, steps=effort.steps, rng=rng)
    sets["searched"] = found[: effort.images]
    # One pass over all of them: on a large network a batch of 64 for each would take minutes.
    gaps = measure_gaps(reference, candidate, np.concatenate(list(sets.values())))
    ends = np.cumsum([len(images) for images in sets.values()]).tolist()
    parities = {
        name: gaps.summary(slice(end - len(images), end))
        for (name, images), end in zip(sets.items(), ends, strict=True)
    }
    limit = PARITY_LIMITS[precision]
    worst = max(
        _LIMITED.get(precision, parities), key=lambda name: parities[name].max_abs_error
    )
    error = parities[worst].max_abs_error
    if not error <= limit:
        raise ParityFailed(
            f"expected torch and onnxruntime within {limit:g} of each other in {precision}, "
            f"got {error:.3g} on {worst} images "
            f"(cosine {parities[worst].min_cosine:.9f})" + _WAYS_OUT.get(precision, "")
        )
    return _record(parities, precision, limit, effort.steps)


def _record(
    parities: dict[str, Parity], precision: str, limit: float, steps: int
) -> dict[str, object]:
    return {
        "precision": precision,
        "reference": f"torch {torch.__version__}",
        "candidate": f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider",
        "quantity": "embedding",
        "limit": limit,
        "max_abs_error": max(parity.max_abs_error for parity in parities.values()),
        "min_cosine": min(parity.min_cosine for parity in parities.values()),
        "search_steps": steps,
        "inputs": {name: parity.to_dict() for name, parity in parities.items()},
    }
