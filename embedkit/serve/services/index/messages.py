"""Rows and hits as messages."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedkit.errors import MessageTooLarge
from embedkit.retrieve.ask.groups import Group
from embedkit.retrieve.limits import Limits
from embedkit.retrieve.names import HitRuns, HitTable
from embedkit.retrieve.store import Hits, Row
from embedkit.types import SearchParams
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2, tensor_pb2

__all__ = ["check_hits", "check_rows", "group_hits", "hits", "params_of", "record"]

# Bytes of a hit's or a record's message beside id, payload and vector, about.
_FRAME = 24
_ID_BYTES = Limits().id_bytes


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


def hits(found: Hits) -> index_pb2.Hits:
    """The hits of one query."""
    message = index_pb2.Hits(ids=found.ids, scores=found.scores.tolist())
    if found.payloads is not None:
        message.payloads.extend(payload or b"" for payload in found.payloads)
    if found.vectors is not None:
        message.vectors.CopyFrom(encode_tensor(found.vectors))
    return message


def group_hits(groups: Sequence[Group]) -> index_pb2.Hits:
    """The groups of one query: their hits one after the other."""
    message = index_pb2.Hits()
    vectors = [g.hits.vectors for g in groups if g.hits.vectors is not None]
    for group in groups:
        message.MergeFrom(hits(replace(group.hits, vectors=None)))
        value = json.dumps(group.value).encode()
        message.groups.append(index_pb2.Group(value=value, hits=len(group.hits)))
    if vectors:
        message.vectors.CopyFrom(encode_tensor(np.concatenate(vectors)))
    return message


def check_hits(answers: Sequence[Hits], most: int) -> None:
    """Refuse an answer that would be too large, before it is made.

    Raises:
        MessageTooLarge: If so.
    """
    if isinstance(answers, HitTable | HitRuns):  # its ids are no texts yet
        if answers.slots.size * (_ID_BYTES + _FRAME) > most:
            _check_size(answers.id_bytes + answers.slots.size * _FRAME, most)
        return
    _check_size(
        sum(h.size + sum(map(len, h.ids)) + _FRAME * len(h) for h in answers),
        most,
    )


def check_rows(rows: Iterable[Row | None], most: int) -> None:
    """Refuse an answer that would be too large; see ``check_hits``."""
    _check_size(sum(r.size + len(r.id) + _FRAME for r in rows if r is not None), most)


def _check_size(size: int, most: int) -> None:
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


def _tensor(vector: npt.NDArray[np.float32] | None) -> tensor_pb2.Tensor | None:
    return None if vector is None else encode_tensor(vector)
