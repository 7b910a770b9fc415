"""What is kept of a loss that is not finite: the batch that caused it."""

from pathlib import Path

import numpy as np
import torch

from embedkit.bundle import pack_arrays
from embedkit.errors import TrainingDiverged
from embedkit.train.batch import Loss
from embedkit.train.images import TrainingImages
from embedkit.train.run.checkpoint import write_file

__all__ = ["diverged"]


def diverged(
    folder: Path,
    images: TrainingImages,
    indices: torch.Tensor,
    step: int,
    loss: Loss,
    grad_norm: float,
    *,
    writes: bool,
    stepped: bool = False,
) -> TrainingDiverged:
    """Write the batch to ``diverged.npz`` and return the error that names it.

    Args:
        folder: The run folder.
        images: All training images.
        indices: Which of them made up the batch.
        step: Steps done.
        loss: Its loss.
        grad_norm: Norm of its gradient.
        writes: Whether this process writes files; else another one writes the batch.
        stepped: Whether the step was taken, and only its weights give features of the batch
            that are not finite.
    """
    path = folder / "diverged.npz"
    if writes:
        write_file(path, pack_arrays(_arrays(images, indices, step, loss, grad_norm)))
    got = f"loss {float(loss.total.detach())} and gradient norm {grad_norm}"
    what = f"a finite loss and gradient, got {got} after {step} steps"
    if stepped:
        what = f"finite features after {step} steps, got some that are not (from {got})"
    return TrainingDiverged(
        f"expected {what}; the batch is in {path}; lower "
        "optimiser.lr, set optimiser.clip_norm=1, lengthen schedule.warmup_epochs, or set "
        "run.precision=fp32"
    )


def _arrays(
    images: TrainingImages, indices: torch.Tensor, step: int, loss: Loss, grad_norm: float
) -> dict[str, np.ndarray]:
    labels = images.labels
    arrays: dict[str, np.ndarray] = {
        "images": images.images[indices].cpu().numpy(),
        "indices": indices.cpu().numpy(),
        "step": np.asarray(step),
        "grad_norm": np.asarray(grad_norm),
    }
    if labels is not None:
        arrays["labels"] = labels[indices].cpu().numpy()
    for name, value in loss.parts.items():
        arrays[f"loss_{name}"] = np.asarray(float(value))
    return arrays
