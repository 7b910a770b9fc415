"""How attacked images reach the victim: as pixels, as PNG or JPEG files, for which output."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedkit.errors import InvalidInput, NotFound
from embedkit.types import (
    Embedder,
    Embeddings,
    EncodedImages,
    FeatureEmbedder,
    Images,
    Metered,
    Pixels,
    Usage,
)

__all__ = ["ENCODINGS", "Encoding", "Through", "encoded", "through"]

Encoding = Literal["uint8", "png", "jpeg"]
ENCODINGS: tuple[Encoding, ...] = ("uint8", "png", "jpeg")
"""What a served victim can receive; float pixels exist on the twin alone."""


def encoded(images: Images, encoding: Encoding, *, quality: int = 75) -> Images | EncodedImages:
    """Return images as a client would send them.

    Args:
        images: (n, h, w, c) uint8, with 1 or 3 channels for ``png`` and ``jpeg``.
        encoding: ``uint8`` leaves them alone, ``png`` loses nothing, ``jpeg`` does.
        quality: Of JPEG, 1 to 95, with colour at half the resolution as is usual.

    Raises:
        InvalidInput: If the encoding is unknown or cannot hold that many channels.
    """
    if encoding == "uint8":
        return images
    if encoding not in ENCODINGS:
        raise InvalidInput(f"expected an encoding of {list(ENCODINGS)}, got {encoding!r}")
    if images.shape[3] not in (1, 3):
        raise InvalidInput(f"expected 1 or 3 channels for {encoding}, got {images.shape[3]}")
    return tuple(_file(image, encoding, quality) for image in images)


def _file(image: Pixels, encoding: str, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    made = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if encoding == "png":
        made.save(buffer, "PNG", compress_level=1)
    else:
        made.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@dataclass(frozen=True)
class Through:
    """A victim that is asked in another way; an Embedder for attacks like any other.

    Attributes:
        model: The victim.
        ask: From images to (n, d), whatever the attacked head decides from.
    """

    model: Embedder
    ask: Callable[[Images | EncodedImages], Embeddings]

    @property
    def dim(self) -> int:
        """Dimensions of an answer."""
        return self.model.dim

    @property
    def digest(self) -> str:
        """Of the victim."""
        return self.model.digest

    @property
    def usage(self) -> Usage:
        """What the victim counted.

        Raises:
            AttributeError: If it does not count, so that this is no ``Metered`` either.
        """
        if not isinstance(self.model, Metered):
            raise AttributeError("usage")
        return self.model.usage

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Ask the victim."""
        return self.ask(images)


def through(
    model: Embedder,
    *,
    output: Literal["embedding", "features"] = "embedding",
    encoding: Encoding = "uint8",
    quality: int = 75,
) -> Embedder:
    """Return the victim behind an output and an encoding; pixels are encoded on every query.

    Args:
        model: The victim.
        output: Unit vectors, or features before normalisation.
        encoding: How pixels travel.
        quality: Of JPEG.

    Raises:
        NotFound: If features are asked of a victim that gives none.
    """
    ask = model.embed
    if output == "features":
        if not isinstance(model, FeatureEmbedder):
            raise NotFound(
                f"expected a model with features, got {type(model).__name__} without them"
            )
        ask = model.features
    if encoding == "uint8":
        return model if output == "embedding" else Through(model, ask)

    def send(images: Images | EncodedImages) -> Embeddings:
        if isinstance(images, np.ndarray):
            return ask(encoded(images, encoding, quality=quality))
        return ask(images)

    return Through(model, send)
