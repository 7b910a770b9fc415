"""What the synchronous client does with collections."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, Unpack

import numpy.typing as npt

from embedkit.client.images import ImageInput
from embedkit.client.index import collections as whole
from embedkit.client.index import content, searching
from embedkit.client.index.searching import Options, Wanted, Window
from embedkit.client.items import Batch, Items
from embedkit.client.messages import Plan, ServerInfo
from embedkit.client.window import Window as Requests
from embedkit.errors import MessageTooLarge
from embedkit.types import (
    Collection,
    CollectionLimits,
    DuplicatePage,
    Hit,
    HitGroup,
    Metric,
    RangeHits,
    Record,
    Verification,
)

__all__ = ["IndexCalls"]

Result = TypeVar("Result")


class IndexCalls(ABC):
    """Methods of a client that concern collections.

    Searches take further keywords: ``filter`` (expression over payloads), ``with_payload``
    (True), ``with_vectors`` (False), ``params`` (``SearchParams``, how hard the index tries),
    and ``model_digest`` (of the model that made ``vectors``; checked if given).
    """

    @abstractmethod
    def run(self, plan: Plan[Result]) -> Result:
        """Send a plan's requests and return its result."""

    @abstractmethod
    def server(self) -> ServerInfo:
        """What the server has and accepts."""

    @abstractmethod
    def _stream(self, window: Requests[Result], method: str) -> Iterator[Result]:
        """Send the requests of many plans on one stream; yields their results in order."""

    def search(
        self,
        collection: str,
        *,
        vectors: npt.ArrayLike | None = None,
        images: ImageInput | None = None,
        k: int = 10,
        offset: int = 0,
        threshold: float | None = None,
        **options: Unpack[Options],
    ) -> list[list[Hit]]:
        """Return up to ``k`` hits per query, best first.

        Args:
            collection: Its name.
            vectors: (n, d) or (d,) numbers; or else
            images: Any form that ``embed`` takes.
            k: At least 1.
            offset: Best hits to leave out.
            threshold: Least score of a hit; None keeps all.
            options: As any search; see the class.

        Raises:
            InvalidInput: If vectors, k or filter do not fit the collection.
            ModelMismatch: If the collection was filled by another model.
            NotFound: If there is no such collection.
        """
        items = Items(vectors, images, self.server().room)
        window = Window(k, offset, threshold)
        return self.run(searching.search(collection, items, window, Wanted(**options)))

    def search_stream(
        self,
        collection: str,
        batches: Iterable[npt.ArrayLike],
        *,
        k: int = 10,
        offset: int = 0,
        threshold: float | None = None,
        **options: Unpack[Options],
    ) -> Iterator[list[list[Hit]]]:
        """Search for batch after batch of vectors on one stream; yields the hits of each.

        A batch is taken when there is room for it, a few ahead of the one that is yielded.

        Args:
            collection: Its name.
            batches: Each (n, d) or (d,) numbers.
            k: As for ``search``; the others too.
            offset: Best hits to leave out.
            threshold: Least score of a hit; None keeps all.
            options: As any search; see the class.
        """
        room = self.server().room
        items = (Items(vectors, None, room) for vectors in batches)
        plans = searching.searches(
            collection, items, Window(k, offset, threshold), Wanted(**options)
        )
        yield from self._stream(Requests(plans), "IndexService.SearchStream")

    def search_groups(
        self,
        collection: str,
        *,
        vectors: npt.ArrayLike | None = None,
        images: ImageInput | None = None,
        by: str,
        k: int = 10,
        size: int = 1,
        **options: Unpack[Options],
    ) -> list[list[HitGroup]]:
        """Return the best ``k`` groups of hits per query, the one with the best hit first.

        Args:
            collection: Its name.
            vectors: (n, d) or (d,) numbers; or else
            images: Any form that ``embed`` takes.
            by: Payload key, nested ones with dots; hits without a text, number or boolean
                there are left out.
            k: Groups, at least 1.
            size: Hits of each group, at most.
            options: As any search; see the class.
        """
        items = Items(vectors, images, self.server().room)
        return self.run(
            searching.search_groups(collection, items, by, (k, size), Wanted(**options))
        )

    def range_search(
        self,
        collection: str,
        *,
        vectors: npt.ArrayLike | None = None,
        images: ImageInput | None = None,
        threshold: float,
        limit: int = 1000,
        **options: Unpack[Options],
    ) -> list[RangeHits]:
        """Return all hits of at least a score, best first, and whether a limit cut them.

        Args:
            collection: Its name.
            vectors: (n, d) or (d,) numbers; or else
            images: Any form that ``embed`` takes.
            threshold: Least score of a hit; under ``l2`` minus the squared distance.
            limit: Hits per query, at most.
            options: As any search; see the class.
        """
        items = Items(vectors, images, self.server().room)
        return self.run(
            searching.range_search(collection, items, threshold, limit, Wanted(**options))
        )

    def duplicates(
        self,
        collection: str,
        threshold: float,
        *,
        neighbours: int = 100,
        **options: Unpack[Options],
    ) -> Iterator[DuplicatePage]:
        """Yield the pairs of a collection of at least a score, page by page, each pair once.

        Args:
            collection: Its name.
            threshold: Least score of a pair.
            neighbours: Items within the score that are looked at for each item.
            options: ``filter``, which holds for both of a pair, and ``params``.
        """
        wanted, after, is_last = Wanted(**options), 0, False
        while not is_last:
            plan = searching.duplicates(collection, threshold, after, neighbours, wanted)
            found = self.run(plan)
            after, is_last = found.next_after, not found.next_after
            yield found.page

    def upsert(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        vectors: npt.ArrayLike | None = None,
        images: ImageInput | None = None,
        payloads: Sequence[Mapping[str, object] | None] | None = None,
        model_digest: str = "",
        if_sequence: int | None = None,
    ) -> int:
        """Store vectors or images; returns after the commit, with its sequence number.

        A large upsert is several commits. If one fails, those before it stay: repeat the call.

        Args:
            collection: Its name.
            ids: One per item, each once; existing ones are replaced.
            vectors: (n, d) numbers, stored as float32; or else
            images: Any form that ``embed`` takes.
            payloads: A JSON object or None for each id.
            model_digest: Model that made ``vectors``; the collection remembers it.
            if_sequence: Store only if none of the ids was written after this number: the
                largest ``sequence`` of what one ``get`` of them returned, or 0 if none of them
                may exist. A deleted id is no obstacle. A request whose answer was lost is
                repeated, and may find its own write.

        Raises:
            InvalidInput: If ids, payloads or vectors do not fit.
            ModelMismatch: If the collection was filled by another model.
            SequenceConflict: If an id was written after ``if_sequence``.
        """
        items = Items(vectors, images, self.server().room)
        return self.run(
            content.upsert(collection, ids, items, payloads, model_digest, if_sequence)
        )

    def upsert_stream(
        self, collection: str, batches: Iterable[Batch], *, model_digest: str = ""
    ) -> Iterator[int]:
        """Store batch after batch on one stream; yields the sequence number of each commit.

        For more than fits into memory. Batches are committed in order; after a failure that is
        repeated, one may be committed after its successors, so each id belongs in one batch.

        Args:
            collection: Its name.
            batches: What ``upsert`` takes, each; taken when there is room for it.
            model_digest: Model that made the vectors.
        """
        plans = content.upserts(collection, batches, self.server().room, model_digest)
        yield from self._stream(Requests(plans), "IndexService.UpsertStream")

    def delete(self, collection: str, ids: Sequence[str] = (), *, filter: str = "") -> int:
        """Remove ids, skipping unknown ones, or else everything that a filter holds for.

        Args:
            collection: Its name.
            ids: Removed if they are there; or else
            filter: Expression over payloads; empty removes nothing.

        Returns:
            How many were removed.

        Raises:
            InvalidInput: If there are both ids and a filter, or it is no filter.
        """
        return self.run(content.delete(collection, ids, filter))

    def get(
        self, collection: str, ids: Sequence[str], *, with_vectors: bool = True
    ) -> list[Record | None]:
        """Look ids up, in order; None for each that is not there."""
        wanted = content.checked_ids(ids)
        for step in content.steps(wanted):
            plan = content.get(collection, wanted, step, with_vectors=with_vectors)
            try:
                return self.run(plan)
            except MessageTooLarge:
                if step == 1:
                    raise
        raise AssertionError("the last step is 1")

    def scroll(
        self,
        collection: str,
        *,
        filter: str = "",
        with_vectors: bool = False,
        page: int = 1000,
    ) -> Iterator[Record]:
        """Yield the records of a collection in the order of writing, a page at a time.

        Everything that is there all the time is met; what is written meanwhile comes at the
        end, an id that was met before a second time.

        Args:
            collection: Its name.
            filter: Expression over payloads.
            with_vectors: Whether records carry their vector.
            page: Records of one request.
        """
        after, is_last = 0, False
        while not is_last:
            plan = content.scroll(collection, after, page, filter, with_vectors=with_vectors)
            found = self.run(plan)
            after, is_last = found.next_after, not found.next_after
            yield from found.records

    def sample(
        self,
        collection: str,
        count: int,
        *,
        seed: int = 0,
        filter: str = "",
        with_vectors: bool = False,
    ) -> list[Record]:
        """Return records drawn at random without replacement, in the order of writing.

        Args:
            collection: Its name.
            count: How many; all where there are not more.
            seed: The same seed and state of the collection give the same records.
            filter: Expression over payloads.
            with_vectors: Whether records carry their vector.
        """
        return self.run(
            content.sample(collection, count, seed, filter, with_vectors=with_vectors)
        )

    def create_collection(
        self,
        name: str,
        *,
        dim: int = 0,
        model: str = "",
        metric: Metric = "cosine",
        kind: str = "auto",
        storage: str = "float32",
        limits: CollectionLimits | None = None,
    ) -> Collection:
        """Make a collection of vectors of ``dim`` dimensions, or of a model's embeddings.

        Args:
            name: Letters, digits and ``._-``.
            dim: Of the vectors; may be 0 with a model.
            model: That embeds its images.
            metric: How vectors are compared.
            kind: Of the index: ``auto``, ``flat``, ``ivf_flat``, ``hnsw``, ``sq8``, ``pq``.
            storage: ``float32``, ``float16`` or ``int8``.
            limits: What it may hold; writes beyond that are ``CollectionFull``.

        Raises:
            AlreadyExists: If the name is taken.
            InvalidInput: If name, dimension, metric, kind or storage is not allowed.
            NotFound: If there is no such model.
        """
        return self.run(whole.create(name, dim, model, metric, kind, storage, limits))

    def drop_collection(self, name: str) -> None:
        """Remove a collection and everything in it."""
        self.run(whole.drop(name))

    def collections(self) -> list[Collection]:
        """Every collection, by name."""
        return self.run(whole.collections())

    def describe(self, collection: str) -> Collection:
        """One collection as it is now, and how its index stands."""
        return self.run(whole.describe(collection))

    def wait_until_built(self, collection: str, timeout_s: float | None = None) -> Collection:
        """Wait until no index of a collection is being built; returns it with its index.

        Writes that are acknowledged before are waited for, as far as they call for a build.
        ``index.error`` says why the last build failed, if it did.

        Args:
            collection: Its name.
            timeout_s: Seconds, at most; None waits for ever.

        Raises:
            DeadlineExceeded: If the build takes longer; it goes on.
        """
        for pause_s in whole.pauses(collection, timeout_s):
            found = self.describe(collection)
            if found.index is None or not found.index.is_building:
                return found
            time.sleep(pause_s)
        raise AssertionError("pauses end with an error")

    def compact(self, collection: str) -> int:
        """Give a collection's freed space back; returns the bytes."""
        return self.run(whole.compact(collection))

    def verify(self, collection: str) -> Verification:
        """Compare what searches are answered from with the records themselves."""
        return self.run(whole.verify(collection))
