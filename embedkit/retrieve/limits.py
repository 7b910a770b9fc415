"""What a store accepts: one place for every check of a request's content."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from embedkit.errors import CollectionFull, InvalidInput, MessageTooLarge
from embedkit.retrieve.filter.sql import condition
from embedkit.retrieve.index.kinds import check_kind, check_storage
from embedkit.retrieve.store import Query, Scan, metric_names
from embedkit.types import Collection, Embeddings, Metric

__all__ = ["Limits", "check_bytes", "check_vectors"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Squared distances of shorter vectors are finite in float32.
_LARGEST_SQUARE = 1e36
# SQLite reads 1,000 levels in some versions, Python as many as are left of its stack.
_LEVELS = 200


@dataclass(frozen=True)
class Limits:
    """The largest of everything in one request.

    Attributes:
        id_bytes: UTF-8 bytes of an id.
        payload_bytes: UTF-8 bytes of one payload.
        dim: Dimensions of a vector.
        rows: Ids or vectors in one request.
        k: Neighbours per query.
        hits: Queries times k.
        collections: Collections in one store.
    """

    id_bytes: int = 512
    payload_bytes: int = 65_536
    dim: int = 16_384
    rows: int = 131_072
    k: int = 10_000
    hits: int = 1_000_000
    collections: int = 4_096

    def check_collection(self, collection: Collection) -> None:
        """Refuse a collection that cannot be made.

        Raises:
            InvalidInput: If name, dimension, metric or kind is not allowed.
        """
        if not _NAME.fullmatch(collection.name):
            raise InvalidInput(
                "expected a collection name of 1 to 63 letters, digits, '._-' that starts "
                f"with a letter or digit, got {collection.name!r}"
            )
        if not 1 <= collection.dim <= self.dim:
            raise InvalidInput(
                f"expected a dimension from 1 to {self.dim}, got {collection.dim}; "
                "give dim or a model"
            )
        if collection.metric not in metric_names():
            raise InvalidInput(
                f"expected a metric of {', '.join(metric_names())}, got {collection.metric!r}"
            )
        check_kind(collection.kind)
        check_storage(collection.storage)
        limits = collection.limits
        if not 0 <= limits.vectors < 1 << 63:
            raise InvalidInput(
                f"expected a limit of vectors of at least 0, got {limits.vectors}"
            )
        if not 0 <= limits.payload_bytes <= self.payload_bytes:
            raise InvalidInput(
                f"expected a limit of payload bytes from 0 (none of its own) to "
                f"{self.payload_bytes}, the server's, got {limits.payload_bytes}"
            )

    def check_count(self, count: int) -> None:
        """Refuse more than ``rows`` ids.

        Raises:
            MessageTooLarge: If so.
        """
        if count > self.rows:
            raise MessageTooLarge(
                f"expected at most {self.rows} ids in one request, got {count}; send several"
            )

    def check_ids(self, ids: Sequence[str]) -> None:
        """Refuse ids that are empty, too long, not text, or given twice.

        A repeated id is refused rather than resolved: which of two vectors was meant is the
        caller's knowledge.

        Raises:
            InvalidInput: Names the id.
            MessageTooLarge: If there are more than ``rows``.
        """
        self.check_count(len(ids))
        for i in ids:
            if not isinstance(i, str) or not i or "\0" in i:
                raise InvalidInput(
                    f"expected ids that are non-empty text without NUL, got {i!r}"
                )
            if not i.isascii() and any("\ud800" <= c <= "\udfff" for c in i):
                raise InvalidInput(f"expected ids of whole characters, got {i!r}")
            if len(i) * 4 > self.id_bytes and len(i.encode()) > self.id_bytes:
                raise InvalidInput(
                    f"expected ids of at most {self.id_bytes} bytes, got {i[:40]!r}... of "
                    f"{len(i.encode())}"
                )
        if len(set(ids)) < len(ids):
            repeated = Counter(ids).most_common(1)[0][0]
            raise InvalidInput(f"expected each id once in a request, got {repeated!r} twice")

    def check_payloads(
        self, payloads: Sequence[bytes | None] | None, count: int, most_bytes: int = 0
    ) -> list[str | None]:
        """Return each payload as JSON text, or None.

        Args:
            payloads: As a request has them.
            count: Vectors that they belong to.
            most_bytes: Of one payload in their collection; 0 for the store's own limit.

        Raises:
            CollectionFull: If one is longer than their collection allows.
            InvalidInput: If their number is not ``count``, or one is not a JSON object.
        """
        if payloads is None:
            return [None] * count
        if len(payloads) != count:
            raise InvalidInput(
                f"expected no payloads or one for each of {count} ids, got {len(payloads)}"
            )
        for i, payload in enumerate(payloads):
            if most_bytes and payload and len(payload) > most_bytes:
                raise CollectionFull(
                    f"expected payloads of at most {most_bytes} bytes in this collection, got "
                    f"{len(payload)} at index {i}; shorten it, or make a collection with a "
                    "larger limit"
                )
        return [self._payload_text(i, payload) for i, payload in enumerate(payloads)]

    def _payload_text(self, index: int, payload: bytes | None) -> str | None:
        if not payload:
            return None
        if len(payload) > self.payload_bytes:
            raise InvalidInput(
                f"expected payloads of at most {self.payload_bytes} bytes, got "
                f"{len(payload)} at index {index}"
            )
        try:
            text = bytes(payload).decode()
            value = json.loads(
                text,
                parse_float=_finite,
                parse_constant=_refuse_constant,
                object_pairs_hook=_each_key_once,
            )
            if "\\u" in text:  # half a character, which UTF-8 does not have
                json.dumps(value, ensure_ascii=False).encode()
            _check_levels(text, value)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"expected a JSON object as payload {index}, got {payload[:40]!r} ({error})"
            ) from None
        if not isinstance(value, dict):
            raise InvalidInput(
                f"expected a JSON object as payload {index}, got {payload[:40]!r}"
            )
        return text

    def check_scan(self, scan: Scan) -> None:
        """Refuse a number of rows, a place to begin or a filter that is not allowed.

        Raises:
            InvalidInput: If so.
        """
        if not 1 <= scan.limit <= self.rows:
            raise InvalidInput(f"expected a limit from 1 to {self.rows}, got {scan.limit}")
        if not 0 <= scan.after < 1 << 63:
            raise InvalidInput(f"expected a slot from 0 to 2**63 - 1, got {scan.after}")
        condition(scan.filter)

    def check_query(self, query: Query) -> None:
        """Refuse a k, a number of queries or hits, or a filter that is not allowed.

        Raises:
            InvalidInput: If so.
            MessageTooLarge: If there are too many queries or hits.
        """
        if len(query.vectors) > self.rows:
            raise MessageTooLarge(
                f"expected at most {self.rows} queries in one request, got "
                f"{len(query.vectors)}; send several"
            )
        if not 1 <= query.k <= self.k:
            raise InvalidInput(f"expected k from 1 to {self.k}, offset included, got {query.k}")
        hits = query.k * len(query.vectors)
        if hits > self.hits:
            raise MessageTooLarge(
                f"expected at most {self.hits} hits in one request, got {len(query.vectors)} "
                f"queries of k={query.k}; send fewer queries at a time"
            )
        condition(query.filter)


def check_vectors(vectors: Embeddings, dim: int, metric: Metric) -> None:
    """Refuse what cannot be compared.

    Raises:
        InvalidInput: If dtype, dimension or a value is wrong; names the first bad row.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidInput(
            f"expected vectors float32 (n, {dim}), got {vectors.dtype} {vectors.shape}"
        )
    squares = np.vecdot(vectors, vectors, dtype=np.float64)
    if ((squares > 0) & (squares <= _LARGEST_SQUARE)).all():  # all but odd ones
        return
    finite = np.isfinite(vectors)
    if not finite.all():
        raise InvalidInput(
            f"expected finite vectors, got NaN or infinity in row {_first(~finite.all(axis=1))}"
        )
    if metric == "cosine":
        zero = ~vectors.any(axis=1)
        if zero.any():
            raise InvalidInput(
                f"expected vectors with a direction under cosine, got zeros in row "
                f"{_first(zero)}"
            )
        return
    if (squares > _LARGEST_SQUARE).any():
        raise InvalidInput(
            f"expected vectors shorter than {_LARGEST_SQUARE**0.5:.0e} under {metric}, got a "
            f"longer one in row {_first(squares > _LARGEST_SQUARE)}; scale them or use cosine"
        )


def check_bytes(size: int, most: int) -> None:
    """Refuse what does not fit into one answer.

    Raises:
        MessageTooLarge: If it has more bytes than that.
    """
    if size > most:
        raise MessageTooLarge(
            f"expected payloads and vectors of at most {most} bytes in one answer, got more; "
            "ask for fewer hits or ids at a time, or without payloads and vectors"
        )


def _first(mask: npt.ArrayLike) -> int:
    """Index of the first true value."""
    return int(np.flatnonzero(mask)[0])


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond what numbers are read as")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object; readers of JSON do not agree on which of two values a key has."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {repeated!r} is there twice")
    return found


def _check_levels(text: str, value: object) -> None:
    """Refuse deep nesting; the text shows at once that there is none."""
    if text.count("[") + text.count("{") <= _LEVELS:
        return
    level = [value]
    for _ in range(_LEVELS):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"more than {_LEVELS} levels of nesting")


def _inside(value: object) -> Iterable[object]:
    """The values within an object or array."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
