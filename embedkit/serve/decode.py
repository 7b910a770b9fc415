"""Encoded files become pixels at the model's size, in parallel, each with its own verdict."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embedkit.errors import BadImage
from embedkit.preprocess import InputSpec, convert, decode, prepare
from embedkit.types import EncodedImages, Images, Pixels

__all__ = ["DEFAULT_MAX_PIXELS", "Decoded", "Decoder"]

log = logging.getLogger(__name__)

# Half of Pillow's own bomb limit: 89 megapixels, 268 MB as RGB.
DEFAULT_MAX_PIXELS = 178_956_970 // 2


@dataclass(frozen=True)
class Decoded:
    """Pixels of the good images, and why the others are none.

    Attributes:
        images: (m, h, w, c) uint8, the m good images in order.
        errors: Error of each other image by its index in the request.
    """

    images: Images
    errors: dict[int, Exception]


class Decoder:
    """Decodes on a bounded number of threads, so that memory and CPU stay bounded.

    Args:
        threads: Images decoded at a time, at least 1.
        max_pixels: An image whose header declares more is refused before it is decoded.
    """

    def __init__(self, threads: int = 2, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.max_pixels = max_pixels
        self._slots = threading.BoundedSemaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def decode(self, files: EncodedImages, spec: InputSpec) -> Decoded:
        """Return the pixels of image files at the model's size.

        Args:
            files: Image files, at least one.
            spec: What the model takes.
        """
        results = self._each(files, lambda data: self._decode_one(data, spec))
        good = [r for r in results if isinstance(r, np.ndarray)]
        errors = {i: r for i, r in enumerate(results) if isinstance(r, Exception)}
        empty = np.empty((0, *spec.shape), np.uint8)
        return Decoded(np.stack(good) if good else empty, errors)

    def convert(self, images: Images, spec: InputSpec) -> Images:
        """Return pixels at the model's size: the array itself where it has that already.

        Raises:
            InvalidInput: If it is not uint8 (n, h, w, 1 or 3).
        """
        if images.shape[1:] == spec.shape:
            return prepare(images, spec)
        with self._slots:
            return prepare(images, spec)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)

    def _each(
        self, files: Sequence[bytes], one: Callable[[bytes], Pixels | Exception]
    ) -> list[Pixels | Exception]:
        if len(files) > 1:
            return list(self._pool.map(one, files))
        # A lone file is decoded where it is: a hop to the pool costs as much as a small image.
        return [one(data) for data in files]

    def _decode_one(self, data: bytes, spec: InputSpec) -> Pixels | Exception:
        with self._slots:
            try:
                return convert(decode(data, spec, max_pixels=self.max_pixels), spec)
            except BadImage as error:
                return error
            except Exception as error:  # a decoder's own fault must not fail the images beside
                log.exception("decoding %d bytes failed without a verdict", len(data))
                return error
