"""Rows and hits as messages."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from embedkit.errors import MessageTooLarge
from embedkit.retrieve.ask.groups import Group
from embedkit.retrieve.store import Row
from embedkit.types import SearchParams
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2, tensor_pb2

__all__ = ["check_size", "group_hits", "hits", "params_of", "record"]

# Bytes of a hit's or a record's message beside id, payload and vector, about.
_FRAME = 24


def record(id_: str, row: Row | None) -> index_pb2.Record:
    """The message of a row, or of an id that is not there."""
    if row is None:
        return index_pb2.Record(found=False, id=id_)
    return index_pb2.Record(
        found=True,
        id=id_,
        vector=_tensor(row.vector),
        payload=row.payload or b"",
        sequence=row.sequence,
    )


def hits(rows: Sequence[Row], scores: npt.NDArray[np.float32]) -> index_pb2.Hits:
    """The hits of one query."""
    return index_pb2.Hits(hits=_hits(rows, scores))


def group_hits(groups: Sequence[Group]) -> index_pb2.Hits:
    """The groups of one query: their hits one after the other."""
    return index_pb2.Hits(
        hits=[hit for g in groups for hit in _hits(g.rows, g.scores)],
        groups=[
            index_pb2.Group(value=json.dumps(g.value).encode(), hits=len(g.rows))
            for g in groups
        ],
    )


def check_size(answers: Iterable[Iterable[Row | None]], most: int) -> None:
    """Refuse an answer that would be too large, before it is made.

    Raises:
        MessageTooLarge: If so.
    """
    size = sum(
        row.size + len(row.id) + _FRAME for rows in answers for row in rows if row is not None
    )
    if size > most:
        raise MessageTooLarge(
            f"expected an answer of at most {most} bytes, got about {size}; ask for fewer hits "
            "or ids at a time, or without payloads and vectors"
        )


def params_of(message: index_pb2.SearchParams) -> SearchParams:
    """How hard the index is to try."""
    return SearchParams(
        exact=message.exact,
        recall_target=message.recall_target if message.HasField("recall_target") else None,
        nprobe=message.nprobe if message.HasField("nprobe") else None,
        ef=message.ef if message.HasField("ef") else None,
    )


def _hits(rows: Sequence[Row], scores: npt.NDArray[np.float32]) -> list[index_pb2.Hit]:
    return [
        index_pb2.Hit(
            id=row.id, score=score, payload=row.payload or b"", vector=_tensor(row.vector)
        )
        for row, score in zip(rows, scores.tolist(), strict=True)
    ]


def _tensor(vector: npt.NDArray[np.float32] | None) -> tensor_pb2.Tensor | None:
    return None if vector is None else encode_tensor(vector)
