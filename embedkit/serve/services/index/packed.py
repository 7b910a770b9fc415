"""The hits of a whole batch as the bytes of a reply, made from arrays and not from messages.

The bytes are those that protobuf would write, so no caller sees a difference. A message for
each query takes the server 6 µs; this takes it 30 µs and then one for each.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from embedkit.retrieve.names import HitTable
from embedkit.wire.proto import index_pb2

__all__ = ["FEW", "Written", "written_results"]

_BYTES = 2  # wire type of texts, messages and packed numbers
_LONGEST = 127  # a length that takes one byte
FEW = 4
"""Up to so many queries messages are quicker."""


def _tag(name: str, message: str) -> int:
    """First byte of a field, whose number is below 16."""
    fields = index_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name
    return int(fields[name].number) << 3 | _BYTES


_RESULTS = bytes([_tag("results", "SearchResponse")])
_SCORES = bytes([_tag("scores", "Hits")])
_ID = _tag("ids", "Hits")


class Written:
    """A reply that is serialised already.

    Args:
        data: Its bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """The bytes."""
        return self._data


def written_results(table: HitTable, counts: Sequence[int]) -> list[bytes] | None:
    """``SearchResponse.results`` as bytes; None where an id is too long to be written here.

    Args:
        table: At least one query with at least one hit.
        counts: Queries of each reply, one after the other.
    """
    text, lengths = table.packed_ids(room=2)
    if lengths.max() > _LONGEST:
        return None
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths
    text[starts - 2] = _ID
    text[starts - 1] = lengths
    k = table.slots.shape[1]
    ids, scores = text.tobytes(), table.scores.astype("<f4", copy=False).tobytes()
    before_scores = _SCORES + _varint(4 * k)
    parts: list[bytes] = []
    start = 0
    for row, end in enumerate(ends[k - 1 :: k].tolist()):
        size = end - start + len(before_scores) + 4 * k
        ranked = scores[4 * k * row : 4 * k * (row + 1)]
        parts += (_RESULTS, _varint(size), ids[start:end], before_scores, ranked)
        start = end
    ends_of_replies = [0, *accumulate(len(parts) // len(table) * n for n in counts)]
    return [b"".join(parts[start:end]) for start, end in pairwise(ends_of_replies)]


@lru_cache
def _varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits in each byte, the lowest first."""
    low = []
    while value > _LONGEST:
        low.append(value & _LONGEST | 128)
        value >>= 7
    return bytes([*low, value])
