"""Messages that no client would send: random bytes, mutated requests, mutated images."""

import io

import numpy as np
from PIL import Image

from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, index_pb2, model_pb2

__all__ = ["METHODS", "Messages"]

_SERVICES = (embedding_pb2, index_pb2, model_pb2)
METHODS = tuple(
    f"/{service.full_name}/{method.name}"
    for file in _SERVICES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming
)
"""Every unary method."""

_EMBED = "/embedkit.v1.EmbeddingService/Embed"
_INDEX = "/embedkit.v1.IndexService/"


class Messages:
    """An endless supply of bad messages, the same for the same seed.

    Args:
        seed: Of everything random.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._files = _files(self._rng)
        self._corpus = self._requests()

    def next(self) -> tuple[str, bytes]:
        """Return a method and the bytes for it."""
        kind = self._rng.random()
        if kind < 0.15:
            size = int(self._rng.integers(0, 2000))
            return str(self._rng.choice(METHODS)), self._rng.bytes(size)
        if kind < 0.5:
            file = self._files[int(self._rng.integers(len(self._files)))]
            files = [self._mutated(file) for _ in range(int(self._rng.integers(1, 4)))]
            request = embedding_pb2.EmbedRequest(encoded={"data": files})
            return _EMBED, request.SerializeToString()
        name, data = self._corpus[int(self._rng.integers(len(self._corpus)))]
        if kind < 0.6:  # a good message of another method
            return str(self._rng.choice(METHODS)), data
        return name, self._mutated(data)

    def _mutated(self, data: bytes) -> bytes:
        """Set, insert, delete, repeat or cut bytes."""
        out = bytearray(data)
        for _ in range(int(self._rng.integers(1, 8))):
            at = int(self._rng.integers(len(out) + 1))
            kind = int(self._rng.integers(5))
            if kind == 0 and at < len(out):
                out[at] = int(self._rng.integers(256))
            elif kind == 1:
                out[at:at] = self._rng.bytes(int(self._rng.integers(1, 9)))
            elif kind == 2:
                del out[at : at + int(self._rng.integers(1, 9))]
            elif kind == 3:
                out[at:at] = out[at : at + 64]
            elif self._rng.random() < 0.2:
                del out[at:]
        return bytes(out)

    def _requests(self) -> list[tuple[str, bytes]]:
        """Good requests, to be spoiled."""
        pixels = encode_tensor(self._rng.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8))
        large = encode_tensor(self._rng.integers(0, 256, (1, 9, 7, 3), dtype=np.uint8))
        vectors = encode_tensor(self._rng.standard_normal((2, 4)).astype(np.float32))
        every = [1, 2, 4, 5]
        made = [
            (_EMBED, embedding_pb2.EmbedRequest(request_id="a", pixels=pixels, outputs=every)),
            (_EMBED, embedding_pb2.EmbedRequest(pixels=large, dims=3, dtype=4, priority=2)),
            (
                _INDEX + "Upsert",
                index_pb2.UpsertRequest(
                    collection="fuzz", ids=["a", "b"], vectors=vectors, payloads=[b"{}"] * 2
                ),
            ),
            (
                _INDEX + "Search",
                index_pb2.SearchRequest(collection="fuzz", vectors=vectors, k=3),
            ),
            (_INDEX + "Get", index_pb2.GetRequest(collection="fuzz", ids=["a"])),
            (_INDEX + "Delete", index_pb2.DeleteRequest(collection="fuzz", ids=["b"])),
            (_INDEX + "Describe", index_pb2.DescribeRequest(name="fuzz")),
            ("/embedkit.v1.ModelService/GetModel", model_pb2.GetModelRequest(name="digits")),
        ]
        return [(name, message.SerializeToString()) for name, message in made]


def _files(rng: np.random.Generator) -> list[bytes]:
    """Small image files of every kind."""
    found = []
    for form, mode in [
        *(("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "I;16")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        *(("WEBP", "RGB"), ("BMP", "RGB"), ("GIF", "P"), ("TIFF", "RGB")),
    ]:
        levels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        image = Image.fromarray(levels).convert("L" if mode == "I;16" else mode)
        buffer = io.BytesIO()
        (image.convert("I;16") if mode == "I;16" else image).save(buffer, form)
        found.append(buffer.getvalue())
    return found
