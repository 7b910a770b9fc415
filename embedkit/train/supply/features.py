"""Features of training images as they are, whatever the run is doing with its encoder."""

import numpy as np
import numpy.typing as npt
import torch

from embedkit.encoders.encoder import Encoder
from embedkit.train.images import TrainingImages

__all__ = ["embed_some"]

_AT_A_TIME = 256


@torch.no_grad()
def embed_some(
    encoder: Encoder, images: TrainingImages, indices: torch.Tensor
) -> npt.NDArray[np.float32]:
    """Features of some images as they are, by the encoder as it will be served.

    Running statistics and random generators are left as they were.

    Args:
        encoder: In any mode; left in it.
        images: All training images.
        indices: (m,) positions among them.

    Returns:
        (m, f) float32, not normalised.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        parts = [
            encoder.encode(encoder.to_unit(images.images[some])).features.float().cpu()
            for some in torch.split(indices, _AT_A_TIME)
        ]
    finally:
        for module, training in modes.items():
            module.training = training
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found
