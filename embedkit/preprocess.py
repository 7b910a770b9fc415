"""Image files and arrays of any size become uint8 (h, w, c) at the model's size.

This is the only implementation anywhere: training data, the server, the local session and the
evaluation all come through here, so that an image means the same pixels everywhere.
"""

from dataclasses import asdict, dataclass, fields
from typing import Literal

from embedkit.errors import InvalidInput

__all__ = ["InputSpec"]


@dataclass(frozen=True)
class InputSpec:
    """What a model takes, and how anything else is brought to it; stored in the manifest.

    Attributes:
        height: Pixels.
        width: Pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: ``stretch`` to the exact size, or ``shortest_side`` followed by ``crop``.
        interpolation: Pillow's filter of that name.
        antialias: Whether shrinking filters over the source area.
        crop: ``centre`` after ``shortest_side``; ``none`` with ``stretch``.
        grey_weights: Weights of R, G, B when 3 channels become 1; they sum to 1.
        alpha_background: Grey level, 0 to 255, that transparent pixels are laid over.
        sixteen_bit_divisor: 16-bit samples are divided by this and rounded to 8 bits.
    """

    height: int
    width: int
    channels: int
    resize: Literal["stretch", "shortest_side"] = "stretch"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    antialias: bool = True
    crop: Literal["none", "centre"] = "none"
    grey_weights: tuple[float, float, float] = (0.299, 0.587, 0.114)
    alpha_background: int = 255
    sixteen_bit_divisor: int = 257

    def to_dict(self) -> dict[str, object]:
        """The manifest's input block: plain JSON values."""
        values = asdict(self)
        size = {key: values.pop(key) for key in ("height", "width", "channels")}
        values["grey_weights"] = list(self.grey_weights)
        return {**size, "layout": "nhwc", "dtype": "uint8", "preprocess": values}

    @classmethod
    def from_dict(cls, block: dict[str, object]) -> "InputSpec":
        """Read the manifest's input block.

        Raises:
            InvalidInput: If a key is missing or unknown.
        """
        preprocess = block.get("preprocess")
        if not isinstance(preprocess, dict):
            raise InvalidInput(f"expected an input block with 'preprocess', got {block!r}")
        size = {key: block.get(key) for key in ("height", "width", "channels")}
        values = {**size, **preprocess}
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise InvalidInput(f"expected the input keys {sorted(known)}, got {sorted(values)}")
        values["grey_weights"] = tuple(values["grey_weights"])
        return cls(**values)
