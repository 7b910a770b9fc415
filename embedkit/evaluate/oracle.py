"""Oracle: what an attack may ask of the served model, counted and cut off at the limit.

The oracle joins three things: the victim (any Embedder, usually behind gRPC), a meter, and the
head that turns an embedding into the answer the attacker sees.
"""

import hashlib
import threading
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.errors import BudgetExhausted, InvalidInput
from embedkit.evaluate.threat import Threat
from embedkit.types import Embedder, Embeddings, Images, Metered, Scores, Usage

__all__ = ["Indices", "Oracle", "QueryMeter", "VictimHead"]


Indices = Annotated[npt.NDArray[np.int64], "m"]
"""Which of the attacked images each row of a query belongs to."""

# A search by bisection asks about an image again within a few steps, if ever.
_REMEMBERED = 64


class VictimHead(Protocol):
    """How the victim decides, and what counts as fooling it."""

    def margins(self, embeddings: Embeddings, indices: Indices) -> Scores:
        """How far each embedding is from success, (m,).

        Args:
            embeddings: What the victim made of the attacked images, (m, d) unit vectors.
            indices: The attacked image that each row belongs to, (m,).

        Returns:
            Positive exactly while the victim decides as it should; lower is closer to success.
        """
        ...


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


class Oracle:
    """The victim as an attacker sees it; images may be asked about from several threads.

    The oracle remembers the best image of each that it was shown, so that an attack which runs
    out of queries in the middle of its work has lost nothing, and what it says of distances and
    queries is its own account and not the attack's.

    Args:
        victim: The served model.
        head: How it decides.
        originals: The images under attack, (n, h, w, c); what is remembered before any query.
        threat: What the attacker may do; None bounds neither distance nor queries.
        answers: ``scores`` or ``decisions``, whichever the attack declared.

    Attributes:
        meter: The counts so far.
        best: Image asked about, (n, h, w, c). Of scores, the one inside the threat with the
            lowest margin; of decisions, the nearest that fooled the victim, inside the threat
            or not (the last one without a threat).
        best_margins: Their margins, (n,); +inf before the first query.
        nearest: Distance of the nearest image that fooled the victim, inside the threat or
            not, (n,) in the unit of the threat's size; +inf where none did.
        first_success: Number of the query that first fooled the victim from inside the threat,
            (n,), counted from 1; 0 where none did.
    """

    def __init__(
        self,
        victim: Embedder,
        head: VictimHead,
        originals: Images,
        *,
        threat: Threat | None = None,
        answers: str = "scores",
    ) -> None:
        limit = None if threat is None else threat.query_limit
        # Searches by score draw at random and never come back; bisections do.
        remember = answers == "decisions"
        self.meter = QueryMeter(victim, len(originals), limit, remember=remember)
        self.best = originals.copy()
        self.best_margins = np.full(len(originals), np.inf)
        self.nearest = np.full(len(originals), np.inf)
        self.first_success = np.zeros(len(originals), np.int64)
        self._originals = originals
        self._head = head
        self._threat = threat
        self._answers = answers

    def margins(self, images: Images, indices: Indices) -> Scores:
        """Ask for scores: positive while the victim still decides as it should, (m,).

        Args:
            images: Attacked images, (m, h, w, c) uint8, sent in one call.
            indices: The image under attack that each belongs to, (m,).

        Raises:
            InvalidInput: If this attack declared that decisions are enough.
            BudgetExhausted: If any image would go over its limit.
        """
        if self._answers != "scores":
            raise InvalidInput("expected a query for decisions, got one for scores: declare it")
        return self._ask(images, indices)

    def fooled(self, images: Images, indices: Indices) -> npt.NDArray[np.bool_]:
        """Ask for decisions: whether each image fools the victim, (m,).

        Raises:
            BudgetExhausted: If any image would go over its limit.
        """
        return np.asarray(self._ask(images, indices) <= 0)

    def _ask(self, images: Images, indices: Indices) -> Scores:
        before = self.meter.per_image[indices]
        margins = self._head.margins(self.meter.embed(images, indices), indices)
        seen = margins if self._answers == "scores" else np.sign(margins)
        better = seen <= self.best_margins[indices]
        rows = np.flatnonzero(better | (margins <= 0))
        if len(rows):
            self._note(images, indices, rows, seen, before)
        return margins

    def _note(
        self, images: Images, indices: Indices, rows: Indices, seen: Scores, before: Indices
    ) -> None:
        """Keep what is best, nearest and first among the rows that may be."""
        owners, seen = indices[rows], seen[rows]
        distances, inside = np.zeros(len(rows)), np.ones(len(rows), bool)
        if self._threat is not None:
            distances = self._threat.distances(images[rows], self._originals[owners])
            inside = distances <= self._threat.size
        fooled = seen <= 0
        nearest = _least(owners, distances, fooled)
        nearest = nearest[distances[nearest] <= self.nearest[owners[nearest]]]
        best = nearest
        if self._answers == "scores":
            best = _least(owners, seen, inside)
            best = best[seen[best] <= self.best_margins[owners[best]]]
        self.best[owners[best]] = images[rows[best]]
        self.best_margins[owners[best]] = seen[best]
        self.nearest[owners[nearest]] = distances[nearest]
        candidates = np.flatnonzero(fooled & inside & (self.first_success[owners] == 0))
        _, first = np.unique(owners[candidates], return_index=True)
        for row in candidates[first]:
            index = owners[row]
            earlier = int(np.count_nonzero(indices[: rows[row]] == index))
            sent = int(self.meter.per_image[index])
            self.first_success[index] = min(int(before[rows[row]]) + earlier + 1, sent)


def _least(owners: Indices, values: Scores, allowed: npt.NDArray[np.bool_]) -> Indices:
    """Of each owner the allowed row with the least value, the last one among equals."""
    rows = np.flatnonzero(allowed)
    order = rows[np.lexsort((-rows, values[rows], owners[rows]))]
    _, first = np.unique(owners[order], return_index=True)
    return np.asarray(order[first], np.int64)
