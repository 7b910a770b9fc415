"""What a model takes, as plain values that are stored beside its weights."""

from dataclasses import asdict, dataclass, fields
from typing import Literal

from embedkit.errors import InvalidInput

__all__ = ["InputSpec"]

_CHOICES = {
    "resize": ("stretch", "shortest_side"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "crop": ("none", "centre"),
}


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
        sixteen_bit_divisor: 16-bit grey samples are divided by this and rounded to 8 bits.

    Raises:
        InvalidInput: If a value is out of range or the values contradict one another.
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

    def __post_init__(self) -> None:
        self._check_integers()
        self._check_choices()
        weights = self.grey_weights
        if len(weights) != 3 or min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-6:
            raise InvalidInput(
                f"expected grey_weights to be three shares that sum to 1, got {weights!r}"
            )

    def _check_integers(self) -> None:
        for name, low, high in (
            ("height", 1, 65_535),
            ("width", 1, 65_535),
            ("channels", 1, 3),
            ("alpha_background", 0, 255),
            ("sixteen_bit_divisor", 1, 65_535),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not low <= value <= high:
                raise InvalidInput(
                    f"expected {name} to be an integer from {low} to {high}, got {value!r}"
                )
        if self.channels == 2:
            raise InvalidInput("expected 1 channel (grey) or 3 (RGB), got 2")

    def _check_choices(self) -> None:
        if not isinstance(self.antialias, bool):
            raise InvalidInput(
                f"expected antialias to be true or false, got {self.antialias!r}"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidInput(
                    f"expected {name} to be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        if (self.resize == "shortest_side") != (self.crop == "centre"):
            raise InvalidInput(
                "expected resize 'stretch' with crop 'none', or 'shortest_side' with 'centre', "
                f"got {self.resize!r} with {self.crop!r}"
            )
        if self.interpolation == "lanczos" and not self.antialias:
            raise InvalidInput("expected antialias with lanczos, got antialias = False")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.height, self.width, self.channels

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
            InvalidInput: If a key is missing or unknown, or a value is out of range.
        """
        preprocess = block.get("preprocess")
        if not isinstance(preprocess, dict):
            raise InvalidInput(f"expected an input block with 'preprocess', got {block!r}")
        layout = (block.get("layout"), block.get("dtype"))
        if layout != ("nhwc", "uint8"):
            raise InvalidInput(
                f"expected an input of layout nhwc and dtype uint8, got {layout}"
            )
        size = {key: block.get(key) for key in ("height", "width", "channels")}
        values = {**size, **preprocess}
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise InvalidInput(f"expected the input keys {sorted(known)}, got {sorted(values)}")
        weights = values["grey_weights"]
        if not isinstance(weights, list) or not all(
            isinstance(w, float | int) for w in weights
        ):
            raise InvalidInput(
                f"expected grey_weights to be a list of numbers, got {weights!r}"
            )
        values["grey_weights"] = tuple(weights)
        return cls(**values)
