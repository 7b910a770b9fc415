"""One open collection: its truth, the index derived from it, and the line of writes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from embedkit.errors import Cancelled, DeadlineExceeded, NotFound, StoreDamaged, Unavailable
from embedkit.retrieve.filter.sql import Condition, condition
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.source import ReplacedError
from embedkit.retrieve.index.flat import FlatIndex
from embedkit.retrieve.index.kinds import check_params
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.rebuild import Rebuilder
from embedkit.retrieve.index.segment import Segment
from embedkit.retrieve.index.snapshots.restore import restored
from embedkit.retrieve.index.snapshots.snapshot import check_snapshot, clear, write_snapshot
from embedkit.retrieve.index.verify import differences
from embedkit.retrieve.limits import check_vectors
from embedkit.retrieve.names import Names
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.state import Answered, State
from embedkit.retrieve.store import ANSWER_BYTES, Answer, Page, Query, Row, Scan
from embedkit.retrieve.truth.transaction import Position
from embedkit.retrieve.truth.truth import Truth
from embedkit.retrieve.truth.vectors import Vectors
from embedkit.retrieve.truth.view import View
from embedkit.retrieve.write import Write, check_model
from embedkit.types import Collection, Verification

__all__ = ["OpenCollection"]

# A search whose hits were replaced before it could read them is repeated on the newer state.
_FREE_TRIES = 8


class OpenCollection:
    """A collection that this process owns; safe to use from many threads.

    Readers take the published state and never wait for a write. Writers stand in line; whoever
    comes first commits everything that waits in one transaction, so that one disk
    synchronisation serves many requests.

    Raises:
        StoreDamaged: If the truth cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._truth = Truth(folder)
        self._waiting: list[Write] = []
        self._waiting_lock = threading.Lock()
        self._writer = threading.Lock()
        self._dropped = False
        try:
            self._state = self._loaded(self._truth.position())
        except BaseException:
            self._truth.close()
            raise
        self._rebuilder = Rebuilder(self)
        self._rebuilder.consider()

    def _loaded(self, position: Position) -> State:
        """What the truth says, and the index derived from it.

        Raises:
            StoreDamaged: If the truth has another number of vectors than it says.
        """
        collection = position.collection
        empty = LayeredIndex(FlatIndex(collection.dim, collection.metric, collection.storage))
        vectors = Vectors(self._truth, position.last_slot)
        snapshot = self._truth.snapshot()
        index = restored(self.folder, snapshot, empty, vectors)
        if snapshot and index.segment is None:  # gone or no good, and maybe the last one
            with suppress(Unavailable):  # a full disk keeps nobody from reading
                self._truth.keep_snapshot("")
        if index.count != collection.count:
            raise StoreDamaged(
                f"expected {collection.count} vectors in {self.folder}, got {index.count}"
            )
        with self._truth.view() as view:
            return State(position, index, Names.read(view.names()), view.has_payloads())

    @property
    def described(self) -> Collection:
        """The collection as of the last commit."""
        return self._state.position.collection

    def write(self, write: Write) -> tuple[int, Collection]:
        """Commit a write; returns how many ids existed before, and the collection after it.

        Raises:
            Cancelled, DeadlineExceeded: If its turn does not come in time.
            ModelMismatch: If its vectors are of another model.
            NotFound: If the collection has been dropped.
            Unavailable: If the disk refuses.
        """
        with self._waiting_lock:
            self._waiting.append(write)
        try:
            with write.patience.holding(self._writer):
                if not write.outcome.done():
                    with self._waiting_lock:
                        batch, self._waiting = self._waiting, []
                    self._commit(batch)
        except (Cancelled, DeadlineExceeded):
            if self._is_withdrawn(write):
                raise
        return write.outcome.result()

    def _is_withdrawn(self, write: Write) -> bool:
        """Take a write out of the line, unless somebody is committing it."""
        with self._waiting_lock:
            if write not in self._waiting:
                return False
            self._waiting.remove(write)
        return True

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
            if isinstance(answer, Exception):
                write.outcome.set_exception(answer)
            else:
                write.outcome.set_result(answer)

    def _committed(self, batch: list[Write]) -> list[Answered]:
        if self._dropped:
            raise NotFound(f"expected a collection, got {self.described.name!r}, dropped")
        with self._truth.writing() as transaction:
            # Before the commit: what cannot be indexed must not become the truth.
            after = self._state.after(batch, transaction, self._truth.storage)
        self._state = after.state
        self._rebuilder.written(after.gone)
        return after.answers

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
        with self.reading(scan.patience) as view:
            if seed is None:
                return view.scan(scan, where)
            return view.sample(scan, where, seed)

    @contextmanager
    def reading(self, patience: Patience) -> Iterator[View]:
        """Lend one committed state; see ``Truth.view``.

        Raises:
            NotFound: Out of the block, if the collection has been dropped.
        """
        try:
            with self._truth.view(patience) as view:
                yield view
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
        check_params(query.params, collection.kind)
        for _ in range(_FREE_TRIES):
            answer = self._tried(query, where)
            if answer is not None:
                return answer
        # Writes replace the hits as fast as we find them: hold the next write back once.
        with query.patience.holding(self._writer):
            answer = self._tried(query, where)
        if answer is None:
            raise StoreDamaged(f"expected every vector of {self._truth.path} to have its item")
        return answer

    def _tried(self, query: Query, where: Condition | None) -> Answer | None:
        """Search once; None if a write came between the index and the truth."""
        query.patience.check()
        self._check_not_dropped()
        try:
            return self._search(query) if where is None else self._filtered(query, where)
        except ReplacedError:
            return None
        except StoreDamaged:
            self._check_not_dropped()
            raise

    def _search(self, query: Query) -> Answer | None:
        """Search the published state; None if a hit has been replaced since."""
        state = self._state
        check_model(state.position.collection, query.model_digest)
        near = state.index.search(
            query.vectors, query.k, self._vectors(state), None, query.params
        )
        self._notice_damage(state.index)
        return state.answered(near, query, self._truth)

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
            among = view.matching(where)
            vectors = self._vectors(state)
            near = state.index.search(query.vectors, query.k, vectors, among, query.params)
            self._notice_damage(state.index)
            return state.answered(near, query, view)

    def _notice_damage(self, index: LayeredIndex) -> None:
        """Have an index built anew whose file turned out to be damaged."""
        if index.is_damaged:
            self._rebuilder.consider()

    def _vectors(self, state: State) -> Vectors:
        """Where the state's index finds what it does not hold."""
        return Vectors(self._truth, state.position.last_slot)

    def compact(self, patience: Patience = FOREVER) -> int:
        """Free the disk and memory of removed vectors; returns the bytes freed on disk.

        An approximate index is built anew in the background if vectors were removed from it.

        Raises:
            Cancelled, DeadlineExceeded: If nobody waits any more; the file is as before then.
        """
        with patience.holding(self._writer):
            self._check_not_dropped()
            state = self._state
            names = state.names.only(state.index.slots())
            self._state = replace(state, index=state.index.packed(), names=names)
            reclaimed = self._truth.compact(patience)
            if state.index.removed:
                self._rebuilder.consider(is_forced=True)
        return reclaimed

    def verify(self, patience: Patience = FOREVER) -> Verification:
        """Compare every vector of the index, and its snapshot, with the truth.

        Raises:
            Cancelled, DeadlineExceeded: If nobody waits any more.
            NotFound: If the collection has been dropped.
        """
        while True:
            with self.reading(patience) as view:
                sequence = view.sequence()
                state = self._state
                if state.position.collection.sequence != sequence:
                    continue
                count, problems = differences(state.index, view.vectors())
            break
        if count != state.position.collection.count:
            problems.append(f"{state.position.collection.count} vectors counted, {count} found")
        problems += self._truth.check(patience)
        patience.check()
        problems += self._snapshot_problems()
        self._notice_damage(state.index)
        return Verification(sequence, count, tuple(problems))

    def _snapshot_problems(self) -> list[str]:
        """What is wrong with the snapshot that belongs to the truth, if there is one."""
        while digest := self._truth.snapshot():
            problem = check_snapshot(self.folder, digest)
            if not problem:
                break
            if self._truth.snapshot() == digest:  # else another has taken its place meanwhile
                return [problem]
        return []

    def inspected(self) -> Collection:
        """The collection as of the last commit, and how its index stands."""
        # Before the state: an index that is not being built any more has been published.
        progress = self._rebuilder.progress
        return self._state.described(progress)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no index is being built; returns whether that came to be."""
        return self._rebuilder.wait(timeout_s)

    def standing(self) -> tuple[Collection, LayeredIndex]:
        """What readers see now."""
        state = self._state
        return state.position.collection, state.index

    def holding(self) -> AbstractContextManager[object]:
        """Hold writes back within the block."""
        return self._writer

    def source(self, check: Callable[[], None]) -> tuple[Vectors, int, int]:
        """The vectors of now, their highest slot and the last write; see ``Host``."""
        position = self._state.position
        vectors = Vectors(self._truth, position.last_slot, check)
        return vectors, position.last_slot, position.collection.sequence

    def publish(self, segment: Segment, sequence: int, gone: Slots) -> None:
        """Let readers see a new segment; see ``Host``."""
        state = self._state
        self._state = replace(state, index=state.index.over(segment, sequence, gone))

    def save(self, segment: Segment, sequence: int) -> None:
        """Write the snapshot, then tell the truth which one it is, then remove the others."""
        digest = write_snapshot(self.folder, segment, sequence)
        with self._writer:
            if self._dropped:
                return
            self._truth.keep_snapshot(digest)
        clear(self.folder, keep=digest)

    def pause(self, *, is_over: bool = False) -> None:
        """End the build in progress and begin none, until it is over."""
        if is_over:
            self._rebuilder.resume()
        else:
            self._rebuilder.stop()

    def close(self, *, dropped: bool = False) -> None:
        """Wait for the write in progress, then close the files."""
        self._rebuilder.stop()
        with self._writer:
            self._dropped = self._dropped or dropped
            self._truth.close()

    def _check_not_dropped(self) -> None:
        if self._dropped:
            raise NotFound(f"expected a collection, got {self.described.name!r}, dropped")
