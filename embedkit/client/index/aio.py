"""What the asyncio client does with collections: the methods of the synchronous one."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
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
    """See ``embedkit.client.index.sync.IndexCalls``."""

    @abstractmethod
    async def run(self, plan: Plan[Result]) -> Result:
        """Send a plan's requests and return its result."""

    @abstractmethod
    async def server(self) -> ServerInfo:
        """What the server has and accepts."""

    @abstractmethod
    def _stream(self, window: Requests[Result], method: str) -> AsyncIterator[Result]:
        """Send the requests of many plans on one stream; yields their results in order."""

    async def search(
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
        """Return up to ``k`` hits per query, best first."""
        items = Items(vectors, images, (await self.server()).room)
        window = Window(k, offset, threshold)
        return await self.run(searching.search(collection, items, window, Wanted(**options)))

    async def search_stream(
        self,
        collection: str,
        batches: Iterable[npt.ArrayLike],
        *,
        k: int = 10,
        offset: int = 0,
        threshold: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncIterator[list[list[Hit]]]:
        """Search for batch after batch of vectors on one stream; yields the hits of each."""
        room = (await self.server()).room
        items = (Items(vectors, None, room) for vectors in batches)
        plans = searching.searches(
            collection, items, Window(k, offset, threshold), Wanted(**options)
        )
        async for result in self._stream(Requests(plans), "IndexService.SearchStream"):
            yield result

    async def search_groups(
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
        """Return the best ``k`` groups of hits per query, the one with the best hit first."""
        items = Items(vectors, images, (await self.server()).room)
        return await self.run(
            searching.search_groups(collection, items, by, (k, size), Wanted(**options))
        )

    async def range_search(
        self,
        collection: str,
        *,
        vectors: npt.ArrayLike | None = None,
        images: ImageInput | None = None,
        threshold: float,
        limit: int = 1000,
        **options: Unpack[Options],
    ) -> list[RangeHits]:
        """Return all hits of at least a score, best first, and whether a limit cut them."""
        items = Items(vectors, images, (await self.server()).room)
        return await self.run(
            searching.range_search(collection, items, threshold, limit, Wanted(**options))
        )

    async def duplicates(
        self,
        collection: str,
        threshold: float,
        *,
        neighbours: int = 100,
        **options: Unpack[Options],
    ) -> AsyncIterator[DuplicatePage]:
        """Yield the pairs of a collection of at least a score, page by page, each pair once."""
        wanted, after, is_last = Wanted(**options), 0, False
        while not is_last:
            plan = searching.duplicates(collection, threshold, after, neighbours, wanted)
            found = await self.run(plan)
            after, is_last = found.next_after, not found.next_after
            yield found.page

    async def upsert(
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
        """Store vectors or images; returns after the commit, with its sequence number."""
        items = Items(vectors, images, (await self.server()).room)
        return await self.run(
            content.upsert(collection, ids, items, payloads, model_digest, if_sequence)
        )

    async def upsert_stream(
        self, collection: str, batches: Iterable[Batch], *, model_digest: str = ""
    ) -> AsyncIterator[int]:
        """Store batch after batch on one stream; yields the sequence number of each commit."""
        plans = content.upserts(collection, batches, (await self.server()).room, model_digest)
        async for result in self._stream(Requests(plans), "IndexService.UpsertStream"):
            yield result

    async def delete(
        self, collection: str, ids: Sequence[str] = (), *, filter: str = ""
    ) -> int:
        """Remove ids, skipping unknown ones, or else everything that a filter holds for."""
        return await self.run(content.delete(collection, ids, filter))

    async def get(
        self, collection: str, ids: Sequence[str], *, with_vectors: bool = True
    ) -> list[Record | None]:
        """Look ids up, in order; None for each that is not there."""
        wanted = content.checked_ids(ids)
        for step in content.steps(wanted):
            plan = content.get(collection, wanted, step, with_vectors=with_vectors)
            try:
                return await self.run(plan)
            except MessageTooLarge:
                if step == 1:
                    raise
        raise AssertionError("the last step is 1")

    async def scroll(
        self,
        collection: str,
        *,
        filter: str = "",
        with_vectors: bool = False,
        page: int = 1000,
    ) -> AsyncIterator[Record]:
        """Yield the records of a collection in the order of writing, a page at a time."""
        after, is_last = 0, False
        while not is_last:
            plan = content.scroll(collection, after, page, filter, with_vectors=with_vectors)
            found = await self.run(plan)
            after, is_last = found.next_after, not found.next_after
            for record in found.records:
                yield record

    async def sample(
        self,
        collection: str,
        count: int,
        *,
        seed: int = 0,
        filter: str = "",
        with_vectors: bool = False,
    ) -> list[Record]:
        """Return records drawn at random without replacement, in the order of writing."""
        return await self.run(
            content.sample(collection, count, seed, filter, with_vectors=with_vectors)
        )

    async def create_collection(
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
        """Make a collection of vectors of ``dim`` dimensions, or of a model's embeddings."""
        return await self.run(whole.create(name, dim, model, metric, kind, storage, limits))

    async def drop_collection(self, name: str) -> None:
        """Remove a collection and everything in it."""
        await self.run(whole.drop(name))

    async def collections(self) -> list[Collection]:
        """Every collection, by name."""
        return await self.run(whole.collections())

    async def describe(self, collection: str) -> Collection:
        """One collection as it is now, and how its index stands."""
        return await self.run(whole.describe(collection))

    async def wait_until_built(
        self, collection: str, timeout_s: float | None = None
    ) -> Collection:
        """Wait until no index of a collection is being built; returns it with its index."""
        for pause_s in whole.pauses(collection, timeout_s):
            found = await self.describe(collection)
            if found.index is None or not found.index.is_building:
                return found
            await asyncio.sleep(pause_s)
        raise AssertionError("pauses end with an error")

    async def compact(self, collection: str) -> int:
        """Give a collection's freed space back; returns the bytes."""
        return await self.run(whole.compact(collection))

    async def verify(self, collection: str) -> Verification:
        """Compare what searches are answered from with the records themselves."""
        return await self.run(whole.verify(collection))
