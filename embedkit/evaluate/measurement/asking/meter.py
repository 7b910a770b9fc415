"""The meter between an attack and the model it asks: counts, the hard limit, and a memory."""

import hashlib
import threading
from typing import Annotated

import numpy as np
import numpy.typing as npt

from embedkit.errors import BudgetExhausted
from embedkit.types import Embedder, Embeddings, Images, Metered, Usage

__all__ = ["Indices", "QueryMeter"]

Indices = Annotated[npt.NDArray[np.int64], "m"]
"""Which of the attacked images each row of a query belongs to."""

# A search by bisection asks about an image again within a few steps, if ever.
_REMEMBERED = 64


class QueryMeter:
    """Counts what a victim is asked, per attacked image and in total; safe on many threads.

    With a memory, an image that is asked about again is answered from it, as an attacker who
    pays for each query would do; that is a cache hit and no query. The last 64 answers of each
    image are kept.

    Args:
        victim: The embedder asked.
        count: Number of attacked images.
        limit: Images that may be sent per attacked image; None is unlimited.
        remember: Whether to have a memory.

    Attributes:
        limit: As given.
        per_image: Images sent, (count,).
        bytes_per_image: Pixels sent in bytes, before any coding, (count,).
        hits_per_image: Questions answered from memory, (count,).
    """

    def __init__(
        self,
        victim: Embedder,
        count: int,
        limit: int | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self.limit = limit
        self.per_image = np.zeros(count, dtype=np.int64)
        self.bytes_per_image = np.zeros(count, dtype=np.int64)
        self.hits_per_image = np.zeros(count, dtype=np.int64)
        self._victim = victim
        self._calls = 0
        self._remembers = remember
        self._before = victim.usage if isinstance(victim, Metered) else None
        self._lock = threading.Lock()
        self._known: list[dict[bytes, npt.NDArray[np.float32]]] = [{} for _ in range(count)]

    def embed(self, images: Images, indices: Indices) -> Embeddings:
        """Ask the victim, after counting one query for each row that it has not answered yet.

        Raises:
            BudgetExhausted: If that would take any image over the limit; nothing is sent then.
        """
        if not self._remembers:
            self._count(images, indices, np.arange(len(images)))
            return self._victim.embed(images)
        digests = [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]
        known = [self._known[i].get(d) for i, d in zip(indices, digests, strict=True)]
        new = np.array([row for row, answer in enumerate(known) if answer is None], np.int64)
        self._count(images, indices, new)
        if len(new) == len(images):
            embeddings = self._victim.embed(images)
        else:
            sent = self._victim.embed(images[new]) if len(new) else None
            width = self._victim.dim if sent is None else sent.shape[1]
            embeddings = np.empty((len(images), width), np.float32)
            for row, answer in enumerate(known):
                if answer is not None:
                    embeddings[row] = answer
            if sent is not None:
                embeddings[new] = sent
        for row in new:
            self._remember(int(indices[row]), digests[row], embeddings[row])
        return embeddings

    def _count(self, images: Images, indices: Indices, new: Indices) -> None:
        count = len(self.per_image)
        asked = np.bincount(indices[new], minlength=count)
        with self._lock:
            if self.limit is not None and (self.per_image + asked).max(initial=0) > self.limit:
                raise BudgetExhausted(
                    f"expected at most {self.limit} queries per image, got a query number "
                    f"{(self.per_image + asked).max()}"
                )
            self.per_image += asked
            self.bytes_per_image += asked * int(np.prod(images.shape[1:]))
            self.hits_per_image += np.bincount(indices, minlength=count) - asked
            self._calls += bool(len(new))

    def _remember(self, index: int, digest: bytes, embedding: npt.NDArray[np.float32]) -> None:
        memory = self._known[index]
        memory[digest] = embedding.copy()
        if len(memory) > _REMEMBERED:
            del memory[next(iter(memory))]

    @property
    def usage(self) -> Usage:
        """Totals; calls, bytes and retries are the victim's own where it counts them."""
        images, hits = int(self.per_image.sum()), int(self.hits_per_image.sum())
        if self._before is None or not isinstance(self._victim, Metered):
            return Usage(images, self._calls, int(self.bytes_per_image.sum()), cache_hits=hits)
        now, before = self._victim.usage, self._before
        return Usage(
            images,
            now.calls - before.calls,
            now.bytes_sent - before.bytes_sent,
            now.retries - before.retries,
            hits,
        )
