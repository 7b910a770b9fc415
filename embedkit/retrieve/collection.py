"""One open collection: its truth, the index derived from it, and the line of writes."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedkit.errors import (
    Cancelled,
    DeadlineExceeded,
    ModelMismatch,
    NotFound,
    SequenceConflict,
    StoreDamaged,
)
from embedkit.retrieve.index.flat import FlatIndex, Neighbours
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.filter.sql import Condition, condition
from embedkit.retrieve.limits import check_vectors
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Answer, Page, Query, Row, Scan
from embedkit.retrieve.transaction import Position, Transaction, advanced
from embedkit.retrieve.truth import Truth
from embedkit.types import Collection, Embeddings

__all__ = ["OpenCollection", "Write", "check_model"]

# A search whose hits were replaced before it could read them is repeated on the newer state.
_FREE_TRIES = 8
# What a write is refused for by itself, before it has changed anything.
Refusal = ModelMismatch | SequenceConflict | Cancelled | DeadlineExceeded
_REFUSALS = (ModelMismatch, SequenceConflict, Cancelled, DeadlineExceeded)


@dataclass(frozen=True, eq=False)
class _State:
    """What readers see: replaced as a whole after each commit."""

    position: Position
    index: FlatIndex


class Write:
    """One request to change a collection, and its outcome.

    Args:
        ids: Checked ids.
        vectors: (n, d) checked float32, or None to delete the ids.
        payloads: JSON text or None per id.
        model_digest: Model that made the vectors, or empty.
        where: Filter to delete by in place of ids.
        if_sequence: Refuse it if an id was written after this number; None to write anyway.
        patience: Refuse it once this is over.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors: Embeddings | None = None,
        payloads: Sequence[str | None] = (),
        model_digest: str = "",
        where: Condition | None = None,
        if_sequence: int | None = None,
        patience: Patience = FOREVER,
    ) -> None:
        self.ids = ids
        self.vectors = vectors
        self.payloads = payloads
        self.model_digest = model_digest
        self.where = where
        self.if_sequence = if_sequence
        self.patience = patience
        self.outcome: Future[tuple[int, Collection]] = Future()

    def apply(self, transaction: Transaction, position: Position) -> tuple[Position, list[int]]:
        """Run the statements; returns the position after it and the slots that it emptied.

        Raises:
            ModelMismatch, SequenceConflict, Cancelled, DeadlineExceeded: Before anything is
                changed.
        """
        self.patience.check()
        check_model(position.collection, self.model_digest)
        self._check_sequence(transaction, position.collection)
        if self.where is None:
            gone = transaction.remove(self.ids)
        else:
            gone = transaction.remove_matching(self.where, self.patience)
        if self.vectors is None:
            return advanced(position, slots=0, count=-len(gone), model_digest=""), gone
        added = len(self.ids)
        if added:
            transaction.add(position, self.ids, self.vectors, self.payloads)
        after = advanced(
            position, slots=added, count=added - len(gone), model_digest=self.model_digest
        )
        return after, gone

    def _check_sequence(self, transaction: Transaction, collection: Collection) -> None:
        if self.if_sequence is None:
            return
        newer = transaction.written_after(self.if_sequence, self.ids)
        if newer is not None:
            raise SequenceConflict(
                f"expected no id written after {self.if_sequence}, got {newer[0]!r} written at "
                f"{newer[1]}; the collection is at {collection.sequence}: read again",
                collection.sequence,
            )


class OpenCollection:
    """A collection that this process owns; safe to use from many threads.

    Readers take the published state and never wait for a write. Writers stand in line; whoever
    comes first commits everything that waits in one transaction, so that one disk
    synchronisation serves many requests.

    Raises:
        StoreDamaged: If the truth cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._truth = Truth(folder)
        self._waiting: list[Write] = []
        self._waiting_lock = threading.Lock()
        self._writer = threading.Lock()
        self._dropped = False
        position = self._truth.position()
        collection = position.collection
        index = FlatIndex(collection.dim, collection.metric)
        none = np.empty(0, np.int64)
        for slots, vectors in self._truth.vectors(collection.dim):
            index = index.changed(slots, vectors, none)
        if index.count != collection.count:
            self._truth.close()
            raise StoreDamaged(
                f"expected {collection.count} vectors in {folder}, got {index.count}"
            )
        self._state = _State(position, index)

    @property
    def described(self) -> Collection:
        """The collection as of the last commit."""
        return self._state.position.collection

    def write(self, write: Write) -> tuple[int, Collection]:
        """Commit a write; returns how many ids existed before, and the collection after it.

        Raises:
            ModelMismatch: If its vectors are of another model.
            NotFound: If the collection has been dropped.
            Unavailable: If the disk refuses.
        """
        with self._waiting_lock:
            self._waiting.append(write)
        with self._writer:
            if not write.outcome.done():
                with self._waiting_lock:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        return write.outcome.result()

    def _commit(self, batch: list[Write]) -> None:
        """Commit writes in order as one transaction, publish the new state, then answer."""
        try:
            answers = self._committed(batch)
        except BaseException as error:
            for write in batch:
                write.outcome.set_exception(error)
            if isinstance(error, Exception):
                return
            raise
        for write, answer in zip(batch, answers, strict=True):
            if isinstance(answer, _REFUSALS):
                write.outcome.set_exception(answer)
            else:
                write.outcome.set_result(answer)

    def _committed(self, batch: list[Write]) -> list[tuple[int, Collection] | Refusal]:
        if self._dropped:
            raise NotFound(f"expected a collection, got {self.described.name!r}, dropped")
        state = self._state
        position = state.position
        answers: list[tuple[int, Collection] | Refusal] = []
        added: list[tuple[Slots, Embeddings]] = []
        gone: list[int] = []
        with self._truth.writing() as transaction:
            for write in batch:
                try:
                    after, emptied = write.apply(transaction, position)
                except _REFUSALS as error:
                    answers.append(error)
                    continue
                if write.vectors is not None:
                    slots = np.arange(position.last_slot + 1, after.last_slot + 1)
                    added.append((slots, write.vectors))
                gone += emptied
                position = after
                answers.append((len(emptied), position.collection))
            transaction.stand_at(position)
            # Before the commit: what cannot be indexed must not become the truth.
            index = _indexed(state.index, added, np.asarray(gone, np.int64))
        self._state = _State(position, index)
        return answers

    def get(
        self, ids: Sequence[str], *, with_vectors: bool, answer_bytes: int = ANSWER_BYTES
    ) -> tuple[Row | None, ...]:
        """Look ids up in one committed state, in order."""
        try:
            found = self._truth.by_id(ids, with_vectors=with_vectors, answer_bytes=answer_bytes)
        except StoreDamaged:
            self._check_not_dropped()
            raise
        return tuple(found.get(i) for i in ids)

    def scan(self, scan: Scan, *, seed: int | None = None) -> Page:
        """Read rows of one committed state, in order of slots; drawn at random with a seed."""
        where = condition(scan.filter)
        try:
            with self._truth.view(scan.patience) as view:
                if seed is None:
                    return view.scan(scan, where)
                return view.sample(scan, where, seed)
        except StoreDamaged:
            self._check_not_dropped()
            raise

    def search(self, query: Query) -> Answer:
        """Answer from one committed state.

        Raises:
            InvalidInput: If the vectors do not fit the collection, or the filter is none.
            ModelMismatch: If they are of another model.
        """
        where = condition(query.filter)
        collection = self.described
        check_model(collection, query.model_digest)
        check_vectors(query.vectors, collection.dim, collection.metric)
        for _ in range(_FREE_TRIES):
            answer = self._tried(query, where)
            if answer is not None:
                return answer
        # Writes replace the hits as fast as we find them: hold the next write back once.
        with self._writer:
            answer = self._tried(query, where)
        if answer is None:
            raise StoreDamaged(f"expected every vector of {self._truth.path} to have its item")
        return answer

    def _tried(self, query: Query, where: Condition | None) -> Answer | None:
        """Search once; None if a write came between the index and the truth."""
        query.patience.check()
        try:
            return self._search(query) if where is None else self._filtered(query, where)
        except StoreDamaged:
            self._check_not_dropped()
            raise

    def _search(self, query: Query) -> Answer | None:
        """Search the published state; None if a hit has been replaced since."""
        state = self._state
        check_model(state.position.collection, query.model_digest)
        near = state.index.search(query.vectors, query.k)
        rows = self._truth.by_slot(
            np.unique(near.slots).tolist(),
            with_payload=query.with_payload,
            with_vectors=query.with_vectors,
            answer_bytes=query.answer_bytes,
        )
        return _answered(state, near, rows)

    def _filtered(self, query: Query, where: Condition) -> Answer | None:
        """Search the items that match; None if the truth is not yet or no longer at our state.

        The view is opened before the state is read: a commit is in the truth a moment before
        it is published, and where both have one number they are the same.
        """
        with self._truth.view(query.patience) as view:
            sequence = view.sequence()
            state = self._state
            if state.position.collection.sequence != sequence:
                return None
            check_model(state.position.collection, query.model_digest)
            near = state.index.search(query.vectors, query.k, view.matching(where))
            rows = view.by_slot(
                np.unique(near.slots).tolist(),
                with_payload=query.with_payload,
                with_vectors=query.with_vectors,
                answer_bytes=query.answer_bytes,
            )
        return _answered(state, near, rows)

    def compact(self) -> int:
        """Free the disk and memory of removed vectors; returns the bytes freed on disk."""
        with self._writer:
            self._check_not_dropped()
            state = self._state
            self._state = _State(state.position, state.index.packed())
            return self._truth.compact()

    def close(self, *, dropped: bool = False) -> None:
        """Wait for the write in progress, then close the files."""
        with self._writer:
            self._dropped = self._dropped or dropped
            self._truth.close()

    def _check_not_dropped(self) -> None:
        if self._dropped:
            raise NotFound(f"expected a collection, got {self.described.name!r}, dropped")


def _answered(state: _State, near: Neighbours, rows: dict[int, Row]) -> Answer | None:
    """The hits with their rows; None if one of them is gone."""
    try:
        found = tuple(tuple(rows[slot] for slot in slots) for slots in near.slots.tolist())
    except KeyError:
        return None
    return Answer(found, tuple(near.scores), exact=True, collection=state.position.collection)


def check_model(collection: Collection, model_digest: str) -> None:
    """Refuse vectors of another model than the collection's, where both are known.

    Raises:
        ModelMismatch: If they differ.
    """
    if model_digest and collection.model_digest and model_digest != collection.model_digest:
        raise ModelMismatch(
            f"expected vectors of the model {collection.model_digest} that filled "
            f"{collection.name!r}, got {model_digest}; make a collection for the other model"
        )


def _indexed(index: FlatIndex, added: list[tuple[Slots, Embeddings]], gone: Slots) -> FlatIndex:
    """The index after several writes, of which later ones may undo earlier ones."""
    if not added:
        return index.changed(gone[:0], np.empty((0, index.dim), np.float32), gone)
    slots = np.concatenate([a[0] for a in added])
    vectors = np.concatenate([a[1] for a in added])
    if len(gone):
        keep = ~np.isin(slots, gone)
        slots, vectors = slots[keep], vectors[keep]
    return index.changed(slots, vectors, gone)
