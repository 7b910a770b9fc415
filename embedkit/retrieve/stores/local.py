"""The local store: a directory with one SQLite file per collection, owned by one process."""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from embedkit.errors import AlreadyExists, InvalidInput, NotFound, StoreDamaged
from embedkit.retrieve.collection import OpenCollection
from embedkit.retrieve.filter.sql import condition
from embedkit.retrieve.index.device import IndexDevice, choose
from embedkit.retrieve.index.rebuild import give_back, keep_little
from embedkit.retrieve.index.storage import Storage
from embedkit.retrieve.limits import Limits, check_vectors
from embedkit.retrieve.owner import Owner, usable
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Answer, Page, Query, Row, Scan, stores
from embedkit.retrieve.truth.connections import refusing_writes
from embedkit.retrieve.truth.truth import FILE, create
from embedkit.retrieve.write import Write, check_model
from embedkit.types import Collection, Embeddings, Verification

__all__ = ["LocalStore"]

_LOG = logging.getLogger(__name__)

# Requests leave their copies in the heap of the thread that answered them. They are given back,
# which takes some milliseconds, after so many bytes of vectors and when writes have paused.
_WRITTEN_BYTES = 32 << 20
_LITTLE_BYTES = 1 << 20
_PAUSE_S = 0.5


@stores.register("local")
class LocalStore:
    """Collections in a directory: SQLite holds them, FAISS finds in them.

    Acknowledged means committed: a write that returned survives the process being killed and
    the machine losing power. Indexes are loaded from their snapshots when the store opens,
    and built from SQLite where those do not fit. What lies beside the collections and has no
    truth is left alone, with a warning if it is a folder.

    Args:
        data_dir: Created if absent; belongs to this store until ``close``.
        limits: The largest of everything in one request.
        index_device: What searches, for all stores of the process: the one opened last says.
            ``auto`` takes a GPU if FAISS can use one.

    Raises:
        MissingDependency: If FAISS was built without GPUs and one is asked for.
        InvalidInput: If FAISS sees no GPU and one is asked for, or the directory cannot be
            made, read and written.
        Unavailable: If another process owns the directory; the message has its pid.
        StoreDamaged: If a collection's file is there and cannot be read, or is that of a
            collection of another name than its folder's.

    Example:
        >>> import tempfile, numpy as np
        >>> from embedkit.retrieve.store import Query
        >>> from embedkit.types import Collection
        >>> store = LocalStore(tempfile.mkdtemp())
        >>> _ = store.create(Collection("points", dim=2, metric="l2"))
        >>> points = np.array([[0, 0], [3, 4]], np.float32)
        >>> store.upsert("points", ["origin", "far"], points).count
        2
        >>> answer = store.search("points", Query(points[:1], k=2))
        >>> list(zip(answer.ids[0], answer.scores[0].tolist()))
        [('origin', 0.0), ('far', -25.0)]
        >>> store.close()
    """

    def __init__(
        self,
        data_dir: str | Path,
        *,
        limits: Limits | None = None,
        index_device: IndexDevice = "auto",
    ) -> None:
        self.limits = limits or Limits()
        self.index_device = choose(index_device)
        _LOG.info("indexes are searched on the %s", self.index_device)
        keep_little()
        root = Path(data_dir)
        self._owner = Owner(root)
        self._folder = root / "collections"
        self._open: dict[str, OpenCollection] = {}
        self._written_bytes = 0
        self._pause: threading.Timer | None = None
        # Held to make, drop or close collections; looking one up takes no lock.
        self._changing = threading.Lock()
        try:
            with usable(self._folder):
                self._folder.mkdir(exist_ok=True)
                entries = sorted(self._folder.iterdir())
            for entry in entries:
                if entry.name.startswith("."):  # made or dropped when the process ended
                    shutil.rmtree(entry, ignore_errors=True)
                elif not entry.is_file() and _has_truth(entry):
                    self._open[entry.name] = _collection_in(entry)
        except BaseException:
            self.close()
            raise
        if self._open:  # rows that were read to make indexes
            give_back()

    def create(self, collection: Collection) -> Collection:
        """Make an empty collection; see ``VectorStore.create``."""
        self.limits.check_collection(collection)
        with self._changing:
            if collection.name in self._open:
                raise AlreadyExists(f"expected a new collection name, got {collection.name!r}")
            if os.path.lexists(self._folder / collection.name):
                raise AlreadyExists(
                    f"expected a new collection name, got {collection.name!r}: the data "
                    f"directory has collections/{collection.name}, which is not served; move "
                    "it away or choose another name"
                )
            if len(self._open) >= self.limits.collections:
                raise InvalidInput(
                    f"expected at most {self.limits.collections} collections; drop one first"
                )
            opened = self._made(collection)
            self._open[collection.name] = opened
            return opened.described

    def _made(self, collection: Collection) -> OpenCollection:
        """A new collection on disk, whole or not at all."""
        home = self._folder / collection.name
        with refusing_writes():
            staging = Path(tempfile.mkdtemp(prefix=".making-", dir=self._folder))
            try:
                create(staging, collection)
                _synchronise(staging)
                staging.rename(home)
                _synchronise(self._folder)
                return OpenCollection(home)
            except BaseException:
                # What cannot be removed now has a name that the next start removes.
                with suppress(OSError):
                    home.rename(staging)
                shutil.rmtree(staging, ignore_errors=True)
                raise

    def drop(self, name: str) -> None:
        """Remove a collection and its files; see ``VectorStore.drop``."""
        with self._changing:
            opened = self._opened(name)
            opened.pause()
            try:
                with refusing_writes():
                    dropped = Path(tempfile.mkdtemp(prefix=".dropped-", dir=self._folder))
                    (self._folder / name).rename(dropped / name)
                    _synchronise(self._folder)
            except BaseException:
                opened.pause(is_over=True)
                raise
            del self._open[name]
            opened.close(dropped=True)
            shutil.rmtree(dropped, ignore_errors=True)

    def collections(self) -> tuple[Collection, ...]:
        """Every collection, by name."""
        return tuple(c.described for _, c in sorted(self._open.copy().items()))

    def describe(self, name: str) -> Collection:
        """One collection as it is now."""
        return self._opened(name).described

    def inspect(self, name: str) -> Collection:
        """One collection and how its index stands: its kind, what is built and what waits."""
        return self._opened(name).inspected()

    def upsert(
        self,
        name: str,
        ids: Sequence[str],
        vectors: Embeddings,
        payloads: Sequence[bytes | None] | None = None,
        *,
        model_digest: str = "",
        if_sequence: int | None = None,
        patience: Patience = FOREVER,
    ) -> Collection:
        """Store vectors, all of them or none; see ``VectorStore.upsert``."""
        opened = self._opened(name)
        self.limits.check_ids(ids)
        collection = opened.described
        check_model(collection, model_digest)
        check_vectors(vectors, collection.dim, collection.metric)
        _check_storage(vectors, collection)
        if len(vectors) != len(ids):
            raise InvalidInput(
                f"expected one vector for each of {len(ids)} ids, got {len(vectors)}"
            )
        texts = self.limits.check_payloads(payloads, len(ids), collection.limits.payload_bytes)
        if not ids:
            return collection
        write = Write(
            ids, vectors, texts, model_digest, if_sequence=if_sequence, patience=patience
        )
        after = opened.write(write)[1]
        self._written(vectors.nbytes)
        return after

    def delete(
        self,
        name: str,
        ids: Sequence[str] = (),
        *,
        filter: str = "",
        patience: Patience = FOREVER,
    ) -> tuple[int, Collection]:
        """Remove ids, or what a filter holds for; see ``VectorStore.delete``."""
        opened = self._opened(name)
        self.limits.check_ids(ids)
        where = condition(filter)
        if where is not None:
            if ids:
                raise InvalidInput(
                    f"expected ids or a filter, got {len(ids)} ids and {filter!r}"
                )
            return opened.write(Write((), where=where, patience=patience))
        return opened.write(Write(ids, patience=patience)) if ids else (0, opened.described)

    def get(
        self,
        name: str,
        ids: Sequence[str],
        *,
        with_vectors: bool = True,
        answer_bytes: int = ANSWER_BYTES,
    ) -> tuple[Row | None, ...]:
        """Look ids up, in order; see ``VectorStore.get``."""
        opened = self._opened(name)
        self.limits.check_count(len(ids))
        return opened.get(ids, with_vectors=with_vectors, answer_bytes=answer_bytes)

    def at(
        self,
        name: str,
        slots: Sequence[int],
        *,
        with_payload: bool = True,
        with_vectors: bool = False,
        answer_bytes: int = ANSWER_BYTES,
        patience: Patience = FOREVER,
    ) -> tuple[Row | None, ...]:
        """Look slots up, in order; see ``VectorStore.at``."""
        opened = self._opened(name)
        self.limits.check_count(len(slots))
        with opened.reading(patience) as view:
            found = view.at(
                slots,
                with_payload=with_payload,
                with_vectors=with_vectors,
                answer_bytes=answer_bytes,
            )
        return tuple(map(found.get, slots))

    def scan(self, name: str, scan: Scan) -> Page:
        """Read rows in the order of writing; see ``VectorStore.scan``."""
        opened = self._opened(name)
        self.limits.check_scan(scan)
        return opened.scan(scan)

    def sample(self, name: str, scan: Scan, *, seed: int) -> Page:
        """Read rows drawn at random; see ``VectorStore.sample``."""
        opened = self._opened(name)
        self.limits.check_scan(scan)
        return opened.scan(scan, seed=seed)

    def search(self, name: str, query: Query) -> Answer:
        """Return the nearest neighbours of each query; see ``VectorStore.search``."""
        opened = self._opened(name)
        self.limits.check_query(query)
        return opened.search(query)

    def wait_until_built(self, name: str, timeout_s: float | None = None) -> bool:
        """Wait until no index of a collection is being built; returns whether that came."""
        return self._opened(name).wait(timeout_s)

    def verify(self, name: str, *, patience: Patience = FOREVER) -> Verification:
        """Compare every vector of a collection's index and its snapshot with the truth."""
        return self._opened(name).verify(patience)

    def compact(self, name: str, *, patience: Patience = FOREVER) -> int:
        """Give freed space back; returns the bytes reclaimed on disk."""
        return self._opened(name).compact(patience)

    def _written(self, size: int) -> None:
        """Give memory back now and then; a thread more or less does not matter."""
        self._written_bytes += size
        if self._written_bytes > _WRITTEN_BYTES:
            self._written_bytes = 0
            give_back()
        if self._pause is None and size > _LITTLE_BYTES:
            self._pause = threading.Timer(_PAUSE_S, self._paused, (self._written_bytes,))
            self._pause.daemon = True
            self._pause.start()

    def _paused(self, then: int) -> None:
        """Give memory back if nothing has been written since; else look again later."""
        self._pause = None
        if self._written_bytes == then:
            give_back()
        else:
            self._written(_LITTLE_BYTES + 1)

    def close(self) -> None:
        """Close every collection and let another process have the directory."""
        if self._pause is not None:
            self._pause.cancel()
        with self._changing:
            while self._open:
                _, opened = self._open.popitem()
                opened.close()
            self._owner.release()

    def _opened(self, name: str) -> OpenCollection:
        opened = self._open.get(name)
        if opened is None:
            known = ", ".join(sorted(self._open)) or "none yet"
            raise NotFound(f"expected a collection of: {known}; got {name!r}")
        return opened


def _check_storage(vectors: Embeddings, collection: Collection) -> None:
    """Refuse vectors that cannot be compared once they are stored."""
    rounded = Storage(collection.storage, collection.dim).rounded(vectors)
    if rounded is not vectors:
        try:
            check_vectors(rounded, collection.dim, collection.metric)
        except InvalidInput as error:
            raise InvalidInput(f"{error}, as {collection.storage} holds them") from None


def _has_truth(folder: Path) -> bool:
    """Whether a folder is a collection; a warning says which one is not.

    Raises:
        StoreDamaged: If that cannot be found out.
    """
    try:
        (folder / FILE).lstat()
    except (FileNotFoundError, NotADirectoryError):
        _LOG.warning(
            "%s is not served: expected %s in it, got none. It is a stray folder, or a "
            "collection that has lost that file: put the file back and start again, or move "
            "the folder away",
            folder,
            FILE,
        )
        return False
    except OSError as error:
        raise _damaged(folder, f"expected to read {folder}, got {error}") from error
    return True


def _collection_in(folder: Path) -> OpenCollection:
    try:
        opened = OpenCollection(folder)
    except StoreDamaged as error:
        raise _damaged(folder, str(error)) from error
    name = opened.described.name
    if name != folder.name:
        opened.close()
        raise StoreDamaged(
            f"expected the collection {folder.name!r} in {folder}, got {name!r}: a collection "
            f"has one name; rename the folder to {name!r}, or move it away to start without it"
        )
    return opened


def _damaged(folder: Path, what: str) -> StoreDamaged:
    """The error of a collection that stops the start, and the way out."""
    return StoreDamaged(
        f"{what}; restore {folder} from a copy, or move it away to start without it"
    )


def _synchronise(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
