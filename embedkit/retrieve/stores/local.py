"""The local store: a directory with one SQLite file per collection, owned by one process."""

import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from embedkit.errors import AlreadyExists, InvalidInput, NotFound
from embedkit.retrieve.collection import OpenCollection
from embedkit.retrieve.directory.folders import Folders
from embedkit.retrieve.directory.owner import Owner
from embedkit.retrieve.filter.sql import condition
from embedkit.retrieve.index.device import IndexDevice, choose
from embedkit.retrieve.index.storage import Storage
from embedkit.retrieve.limits import Limits, check_vectors
from embedkit.retrieve.memory import Copies, give_back, keep_little
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Answer, Page, Query, Row, Scan, stores
from embedkit.retrieve.write import Write, check_model
from embedkit.types import Collection, Embeddings, Verification

__all__ = ["LocalStore"]

_LOG = logging.getLogger(__name__)


@stores.register("local")
class LocalStore:
    """Collections in a directory: SQLite holds them, FAISS finds in them.

    Acknowledged means committed: a write that returned survives the process being killed and
    the machine losing power. Indexes are loaded from their snapshots when the store opens,
    and built from SQLite where those do not fit.

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
        self._owner = Owner(Path(data_dir))
        self._open: dict[str, OpenCollection] = {}
        self._copies = Copies()
        # Held to make, drop or close collections; looking one up takes no lock.
        self._changing = threading.Lock()
        try:
            self._folders = Folders(Path(data_dir))
            for opened in self._folders.opened():
                self._open[opened.described.name] = opened
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
            if len(self._open) >= self.limits.collections:
                raise InvalidInput(
                    f"expected at most {self.limits.collections} collections; drop one first"
                )
            opened = self._folders.made(collection)
            self._open[collection.name] = opened
            return opened.described

    def drop(self, name: str) -> None:
        """Remove a collection and its files; see ``VectorStore.drop``."""
        with self._changing:
            opened = self._opened(name)
            opened.pause()
            try:
                dropped = self._folders.put_away(name)
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
        self._copies.made(vectors.nbytes)
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

    def close(self) -> None:
        """Close every collection and let another process have the directory."""
        self._copies.stop()
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
