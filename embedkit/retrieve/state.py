"""One committed state of a collection in memory, and the answers made from it."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.neighbours import Neighbours
from embedkit.retrieve.index.rebuild import Progress
from embedkit.retrieve.index.storage import Storage, Stored
from embedkit.retrieve.limits import check_bytes
from embedkit.retrieve.names import HitTable, Names
from embedkit.retrieve.store import Answer, Hits, Query
from embedkit.retrieve.truth.transaction import Position, Transaction
from embedkit.retrieve.truth.truth import Truth
from embedkit.retrieve.truth.view import Content, View
from embedkit.retrieve.write import Write
from embedkit.types import Collection, IndexState

__all__ = ["Answered", "State"]

Answered = tuple[int, Collection] | Exception
"""How many ids of a write existed before, and the collection after it; or why it is refused."""


class After(NamedTuple):
    """What some writes lead to.

    Attributes:
        state: To be published once they are on disk.
        gone: Slots that they emptied.
        answers: One for each.
    """

    state: "State"
    gone: Slots
    answers: list[Answered]


@dataclass(frozen=True, eq=False)
class State:
    """What readers see: replaced as a whole after each commit.

    Attributes:
        position: What the collection is, and its last write.
        index: Finds the vectors of that write.
        names: Has the id of each.
        has_payloads: Whether any item has one.
    """

    position: Position
    index: LayeredIndex
    names: Names
    has_payloads: bool

    def after(self, batch: list[Write], transaction: Transaction, storage: Storage) -> After:
        """Apply writes in order, in the truth and in memory; one that fails changes nothing.

        Args:
            batch: Of the collection.
            transaction: Not committed yet when this returns.
            storage: How vectors are written.
        """
        position, names, has_payloads = self.position, self.names, self.has_payloads
        answers: list[Answered] = []
        added: list[tuple[Slots, Stored]] = []
        gone: list[int] = []
        for write in batch:
            try:
                with transaction.part():
                    moved, emptied = write.apply(transaction, position)
            except (sqlite3.Error, OSError):  # the disk refuses all of them
                raise
            except Exception as error:
                answers.append(error)
                continue
            if write.vectors is not None:
                slots = np.arange(position.last_slot + 1, moved.last_slot + 1)
                added.append((slots, storage.encoded(write.vectors)))
                names = names.added(slots, write.ids)
                has_payloads = has_payloads or any(p is not None for p in write.payloads)
            gone += emptied
            position = moved
            answers.append((len(emptied), position.collection))
        transaction.stand_at(position)
        emptied_slots = np.asarray(gone, np.int64)
        index = self.index.after_writes(added, emptied_slots)
        if names.wants_packing(index.count):
            names = names.only(index.slots())
        return After(State(position, index, names, has_payloads), emptied_slots, answers)

    def described(self, progress: Progress) -> Collection:
        """The collection, and how its index stands."""
        collection, index = self.position.collection, self.index
        segment = index.segment
        stands = IndexState(
            kind="flat" if segment is None else segment.spec.kind,
            is_building=progress.is_building,
            sequence=collection.sequence if segment is None else index.built_at,
            indexed=0 if segment is None else len(segment.slots),
            tail=index.tail.count,
            removed=index.removed,
            memory_bytes=index.memory_bytes,
            builds=progress.builds,
            error=progress.error,
        )
        return replace(collection, index=stands)

    def answered(self, near: Neighbours, query: Query, reader: Truth | View) -> Answer | None:
        """Name the hits and read what else is asked for; None if one of them is gone.

        Args:
            near: What the index found.
            query: What was asked.
            reader: Has payloads and vectors.
        """
        hits: Sequence[Hits] | None = ()
        if len(near.slots):
            hits = table = HitTable(self.names, near.slots, near.scores.astype(np.float32))
            with_payload = query.with_payload and self.has_payloads
            if with_payload or query.with_vectors:
                hits = _read(table, query, reader, with_payload=with_payload)
        return None if hits is None else Answer(hits, near.exact, self.position.collection)


def _read(
    table: HitTable, query: Query, reader: Truth | View, *, with_payload: bool
) -> tuple[Hits, ...] | None:
    """Hits with what is asked for; None if one of them is gone.

    Raises:
        MessageTooLarge: If the answer has more bytes than the query allows, as each hit has
            what is stored once for all of them; found out before it is made.
    """
    size = table.id_bytes
    if query.with_vectors:
        size += table.slots.size * query.vectors[0].nbytes
    check_bytes(size, query.answer_bytes)
    slots, counts = np.unique(table.slots, return_counts=True)
    contents = reader.contents(
        slots,
        with_payload=with_payload,
        with_vectors=query.with_vectors,
        answer_bytes=query.answer_bytes,
    )
    if len(contents) < len(slots):
        return None
    if with_payload:
        payloads = (contents[slot].payload or b"" for slot in slots.tolist())
        size += int(counts @ np.fromiter(map(len, payloads), np.int64, len(slots)))
        check_bytes(size, query.answer_bytes)
    storage = reader.storage
    return tuple(_filled(h, contents, storage, with_payload=with_payload) for h in table)


def _filled(
    hits: Hits, contents: Mapping[int, Content], storage: Storage, *, with_payload: bool
) -> Hits:
    """Hits with what is stored under them."""
    mine = [contents[slot] for slot in hits.slots.tolist()]
    data = [content.data for content in mine if content.data is not None]
    return replace(
        hits,
        payloads=[content.payload for content in mine] if with_payload else None,
        vectors=storage.read(data) if data else None,
    )
