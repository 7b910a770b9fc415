"""Vectors or images, whichever the caller has, cut into the parts of a request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from embedkit.client.images import ImageInput, Room, count_images, cut_images
from embedkit.errors import InvalidInput
from embedkit.types import Embeddings
from embedkit.wire.codec import encode_images, encode_tensor
from embedkit.wire.proto import tensor_pb2

__all__ = ["Batch", "Items"]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of a stream of writes stores; exactly one of vectors and images.

    Attributes:
        ids: One per item, each once.
        vectors: (n, d) numbers, stored as float32.
        images: Any form that ``embed`` takes.
        payloads: A JSON object or None for each id; None for no payloads.
    """

    ids: Sequence[str]
    vectors: npt.ArrayLike | None = None
    images: ImageInput | None = None
    payloads: Sequence[Mapping[str, object] | None] | None = None


class Items:
    """The vectors or images of a request, cut into messages.

    Args:
        vectors: (n, d) or (d,), or None.
        images: Any form of images, or None.
        room: What one message may hold.

    Raises:
        InvalidInput: If there are both or neither, or the form is unknown.
    """

    def __init__(
        self, vectors: npt.ArrayLike | None, images: ImageInput | None, room: Room
    ) -> None:
        if (vectors is None) == (images is None):
            both = "neither" if vectors is None else "both"
            raise InvalidInput(f"expected either vectors or images, got {both}")
        self._room = room
        self._images = images
        self._vectors = _as_vectors(vectors) if vectors is not None else None
        self.noun = "images" if self._vectors is None else "vectors"

    @property
    def count(self) -> int:
        """Vectors or images."""
        if self._vectors is not None:
            return len(self._vectors)
        return 0 if self._images is None else count_images(self._images)

    def cut(
        self, most: int, beside_bytes: int = 0
    ) -> Iterator[tuple[int, int, dict[str, Message]]]:
        """Start, number and message field of each part.

        Args:
            most: Vectors in one message.
            beside_bytes: What comes with each item, at most.
        """
        if self._vectors is not None:
            room = Room(self._room.message_bytes, most, wanted_images=most)
            step = room.beside(beside_bytes).rows(self._vectors[:1].nbytes)
            for start in range(0, len(self._vectors), step):
                part = self._vectors[start : start + step]
                yield start, len(part), {"vectors": encode_tensor(part)}
        elif self._images is not None:
            for chunk in cut_images(self._images, self._room.beside(beside_bytes)):
                message = encode_images(chunk.images)
                field = "pixels" if isinstance(message, tensor_pb2.Tensor) else "encoded"
                yield chunk.start, len(chunk.images), {field: message}


def _as_vectors(vectors: npt.ArrayLike) -> Embeddings:
    try:
        array = np.asarray(vectors)
    except ValueError as error:  # rows of several lengths
        raise InvalidInput(f"expected vectors (n, d) or (d,) of numbers: {error}") from error
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise InvalidInput(
            f"expected vectors (n, d) or (d,) of numbers, got {array.dtype} {array.shape}"
        )
    return np.atleast_2d(array).astype(np.float32, copy=False)
