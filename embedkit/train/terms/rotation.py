"""Rotation: images turned by quarters, the transformation whose amount can be told."""

import torch

from embedkit.errors import InvalidInput

__all__ = ["QUARTERS", "quarter_turns"]

QUARTERS = 4
"""Turns by 0, 90, 180 and 270 degrees."""


def quarter_turns(view: torch.Tensor) -> torch.Tensor:
    """Return the images turned counter-clockwise by 0, 90, 180 and 270 degrees.

    Args:
        view: (b, c, s, s); only a square image keeps its shape.

    Returns:
        (4, b, c, s, s).

    Raises:
        InvalidInput: If the images are not square.
    """
    if view.shape[2] != view.shape[3]:
        raise InvalidInput(
            f"expected square images to turn by quarters, got {view.shape[2]} x "
            f"{view.shape[3]}; set input.height and input.width to the same size"
        )
    return torch.stack([view.rot90(turns, (2, 3)) for turns in range(QUARTERS)])
