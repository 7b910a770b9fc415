"""Searches that ask, and a driver that keeps the model busy while they think.

A search is a generator: it yields images to ask about and is sent the answers. The images under
attack are split into lanes, each a search of its own; while the model works on the question of
one lane, the next questions of the others are made. Every image belongs to one lane and draws
from its own key, so results do not depend on how the calls happen to overlap.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.oracle import Indices, Oracle
from embedkit.types import Images

__all__ = ["Flags", "Search", "Solo", "drive", "each_alone", "lanes_of"]

Flags = npt.NDArray[np.bool_]

Question = tuple[Images, Indices]
Search = Generator[Question, npt.NDArray[Any], None]
"""Yields images (m, h, w, c) with the attacked image of each (m,); is sent m answers."""

Solo = Generator[Images, Flags, None]
"""A search about one image: yields images (m, h, w, c), is sent whether each fooled, (m,)."""

# As many calls on their way as keep a server's batches full while others are thought about.
_LANES = 4
# Fewer images than this per lane would make batches that the model is not busy with.
_LANE_IMAGES = 32
_QUESTION_BYTES = 2**25


def lanes_of(count: int) -> list[npt.NDArray[np.int64]]:
    """Split images 0 to ``count`` - 1 into lanes: up to four, one where there are few."""
    lanes = max(min(_LANES, count // _LANE_IMAGES), 1)
    return np.array_split(np.arange(count), lanes)


def drive(
    ask: Callable[[Images, Indices], npt.NDArray[Any]], searches: Sequence[Search]
) -> None:
    """Run searches to their ends, with one question of each on its way.

    Args:
        ask: Called with one question; with several searches, from as many threads.
        searches: What asks.

    Raises:
        BudgetExhausted: If a question was refused; the others end where they are.
    """
    if len(searches) == 1:
        _run(ask, searches[0])
        return
    from threadpoolctl import threadpool_limits

    # The lanes share the cores: products split once more would only wait for each other.
    limits = threadpool_limits(limits=1, user_api="blas")
    with limits, ThreadPoolExecutor(len(searches)) as pool:
        waiting: dict[Future[npt.NDArray[Any]], Search] = {}
        for search in searches:
            question = next(search, None)
            if question is not None:
                waiting[pool.submit(ask, *question)] = search
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                search = waiting.pop(future)
                question = _next(search, future.result())
                if question is not None:
                    waiting[pool.submit(ask, *question)] = search


def _run(ask: Callable[[Images, Indices], npt.NDArray[Any]], search: Search) -> None:
    question = next(search, None)
    while question is not None:
        question = _next(search, ask(*question))


def _next(search: Search, answers: npt.NDArray[Any]) -> Question | None:
    try:
        return search.send(answers)
    except StopIteration:
        return None


def each_alone(
    oracle: Oracle, count: int, queries: int, search: Callable[[int, Callable[[], int]], Solo]
) -> None:
    """Search about each image alone, with the questions of all in common calls.

    A search ends when its image has fooled the victim from inside the threat, when it asks for
    more than it has left, or when it goes round in circles: after as many answers from memory
    as it has queries.

    Args:
        oracle: Who answers, by decisions.
        count: Number of images.
        queries: Most queries per image; the oracle's own limit caps them.
        search: Makes the search of an image, from its index and a function that says how many
            queries that image has left.
    """
    limit = oracle.meter.limit
    most = queries if limit is None else min(queries, limit)

    def left(index: int) -> int:
        if oracle.meter.hits_per_image[index] >= most:
            return 0
        return most - int(oracle.meter.per_image[index])

    def lane(rows: npt.NDArray[np.int64]) -> Search:
        return _together(
            oracle, {int(i): search(int(i), partial(left, int(i))) for i in rows}, left
        )

    drive(oracle.fooled, [lane(rows) for rows in lanes_of(count)])


def _together(oracle: Oracle, solos: dict[int, Solo], left: Callable[[int], int]) -> Search:
    """One search that asks the questions of many, by the image's index."""
    pending: dict[int, Images] = {}
    for index, solo in solos.items():
        first = next(solo, None)
        if first is not None:
            pending[index] = first
    while pending:
        chosen = _affordable(pending, left)
        if not chosen:
            return
        counts = [len(pending[index]) for index in chosen]
        images = np.concatenate([pending.pop(index) for index in chosen])
        answers = yield images, np.repeat(chosen, counts)
        for index, part in zip(chosen, np.split(answers, np.cumsum(counts)[:-1]), strict=True):
            if oracle.first_success[index]:
                continue
            try:
                pending[index] = solos[index].send(part)
            except StopIteration:
                continue


def _affordable(pending: dict[int, Images], left: Callable[[int], int]) -> list[int]:
    """The next images to ask about, as many as one question holds; the too dear are dropped."""
    chosen: list[int] = []
    size = 0
    for index, images in list(pending.items()):
        if len(images) > left(index):
            del pending[index]
        elif chosen and size + images.nbytes > _QUESTION_BYTES:
            break
        else:
            chosen.append(index)
            size += images.nbytes
    return chosen
