"""Searches that wait together are answered as each would be by itself."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from embedkit.errors import (
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    QueueFull,
)
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.store import Answer, Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.serve.handlers import HandlerPool
from embedkit.serve.services.call import Reply
from embedkit.serve.services.index.line import SearchLine
from embedkit.serve.services.index.parts import Parts
from embedkit.serve.services.index.search import SearchCalls
from embedkit.types import Collection
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2

DIM = 8


class CountingStore(LocalStore):
    """A store that remembers with how many queries it was searched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.searched: list[int] = []

    def search(self, name: str, query: Query) -> Answer:
        self.searched.append(len(query.vectors))
        return super().search(name, query)


class Later(Executor):
    """Runs what was submitted when it is told to, in this thread."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks.append(lambda: fn(*args, **kwargs))
        return Future()

    def run(self) -> None:
        while self.tasks:
            self.tasks.pop(0)()


class Caller:
    """Waits for one answer."""

    trace = None

    def __init__(self, left_s: float | None = None, *, has_gone: bool = False) -> None:
        self.left_s, self.has_gone = left_s, has_gone
        self.answers: list[bytes] = []
        self.errors: list[BaseException] = []
        self.has_ended = threading.Event()

    def time_left(self) -> float | None:
        return self.left_s

    def watch(self, cancel: Callable[[], None]) -> bool:
        return not self.has_gone

    def reply(self, message: Reply) -> None:
        self.answers.append(message.SerializeToString())
        self.has_ended.set()

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.has_ended.set()


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Iterator[CountingStore]:
    store = CountingStore(tmp_path)
    vectors = rng.standard_normal((400, DIM)).astype(np.float32)
    for name, dim in (("c", DIM), ("d", DIM), ("small", 2)):
        store.create(Collection(name, dim))
        payloads = [b'{"n": %d}' % i if i % 3 else None for i in range(400)]
        ids = [f"{'ö' * (i % 90)}{i}" for i in range(400)]
        store.upsert(name, ids, vectors[:, :dim].copy(), payloads)
    yield store
    store.close()


@pytest.fixture
def searching(store: CountingStore) -> SearchCalls:
    return SearchCalls(Parts(store, no_images, answer_bytes=8 << 20))


@pytest.fixture
def later() -> Later:
    return Later()


def no_images(model: str, images: object, timeout_s: float | None, **_: object) -> NoReturn:
    raise AssertionError("nothing is embedded here")


def asking(vectors: np.ndarray, **others: Any) -> index_pb2.SearchRequest:
    fields = {"collection": "c", "k": 5, **others}
    return index_pb2.SearchRequest(vectors=encode_tensor(vectors), **fields)


def queries(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, DIM)).astype(np.float32)


def alone(searching: SearchCalls, request: index_pb2.SearchRequest) -> bytes:
    return searching.found(request, Patience()).SerializeToString()


@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 1, 64, 2), (100, 100, 100)])
@pytest.mark.parametrize(
    "others", [{}, {"with_payload": True}, {"with_vectors": True}, {"k": 1000}]
)
def test_answers_are_those_of_each_search_by_itself(
    searching: SearchCalls,
    later: Later,
    rng: np.random.Generator,
    counts: tuple[int, ...],
    others: dict[str, Any],
) -> None:
    line = SearchLine(searching, later, cores=1)
    requests = [
        asking(queries(rng, n), request_id=str(i), **others) for i, n in enumerate(counts)
    ]
    callers = [Caller() for _ in requests]
    for request, caller in zip(requests, callers, strict=True):
        line.put(request, caller)
    later.run()
    for request, caller in zip(requests, callers, strict=True):
        assert caller.answers == [alone(searching, request)]
        assert not caller.errors


def test_searches_that_wait_are_one_search(
    store: CountingStore, searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    for count in (9, 58, 128, 62):  # the last one would make more than 256
        line.put(asking(queries(rng, count)), Caller())
    later.run()
    assert store.searched == [195, 62]


def test_few_queries_do_not_wait_for_many(
    store: CountingStore, searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    for count in (64, 8, 64, 1):
        line.put(asking(queries(rng, count)), Caller())
    assert len(later.tasks) == 2
    later.run()
    assert sorted(store.searched) == [9, 128]


def test_as_many_searches_begin_at_once_as_there_are_cores(
    store: CountingStore, searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=2)
    for _ in range(3):
        line.put(asking(queries(rng, 1)), Caller())
    assert len(later.tasks) == 2
    later.run()
    assert store.searched == [3]
    line.put(asking(queries(rng, 1)), Caller())
    assert len(later.tasks) == 1


def test_what_differs_in_more_than_its_vectors_is_searched_by_itself(
    store: CountingStore, searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    one = queries(rng, 1)
    different = [
        asking(one),
        asking(one, k=6),
        asking(one, collection="d"),
        asking(one, with_payload=True),
        asking(one, with_vectors=True),
        asking(one, params=index_pb2.SearchParams(exact=True)),
        asking(one, params=index_pb2.SearchParams(recall_target=0.5)),
        asking(one[:, :2], collection="small"),
        asking(one, offset=1),
        asking(one, score_threshold=0.5),
        asking(one, filter="n > 30"),
        asking(one, group_by="n", group_size=1),
        asking(queries(rng, 129)),
    ]
    callers = [Caller() for _ in different]
    for request, caller in zip(different, callers, strict=True):
        line.put(request, caller)
    later.run()
    assert set(store.searched) == {1, 129}
    for request, caller in zip(different, callers, strict=True):
        assert caller.answers == [alone(searching, request)]


def test_one_that_is_refused_spoils_no_other(
    searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    bad = queries(rng, 1)
    bad[0, 3] = np.nan
    cut = asking(queries(rng, 1))
    cut.vectors.data = cut.vectors.data[:-1]
    good = [asking(queries(rng, 2)), asking(queries(rng, 1))]
    callers = [Caller() for _ in range(4)]
    for request, caller in zip([good[0], asking(bad), cut, good[1]], callers, strict=True):
        line.put(request, caller)
    later.run()
    assert callers[0].answers == [alone(searching, good[0])]
    assert callers[3].answers == [alone(searching, good[1])]
    for caller, words in ((callers[1], "row 0"), (callers[2], "expected 32 bytes")):
        assert not caller.answers
        (error,) = caller.errors
        assert isinstance(error, InvalidInput)
        assert words in str(error)


def test_what_is_too_large_together_is_answered_one_by_one(
    store: CountingStore, later: Later, rng: np.random.Generator
) -> None:
    searching = SearchCalls(Parts(store, no_images, answer_bytes=20_000))
    line = SearchLine(searching, later, cores=1)
    callers = [Caller(), Caller(), Caller()]
    for caller, count in zip(callers, (2, 2, 8), strict=True):
        line.put(asking(queries(rng, count), k=50), caller)
    later.run()
    assert [len(c.answers) for c in callers] == [1, 1, 0]
    assert isinstance(callers[2].errors[0], MessageTooLarge)


def test_every_caller_hears_that_there_is_no_such_collection(
    searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    callers = [Caller(), Caller()]
    for caller in callers:
        line.put(asking(queries(rng, 1), collection="nowhere"), caller)
    later.run()
    assert [type(error) for c in callers for error in c.errors] == [NotFound, NotFound]


def test_who_does_not_wait_any_more_is_not_searched_for(
    store: CountingStore, searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, cores=1)
    late, gone, patient, other = Caller(0.0), Caller(has_gone=True), Caller(60.0), Caller()
    for caller in (late, gone, patient, other):
        line.put(asking(queries(rng, 1)), caller)
    later.run()
    assert store.searched == [2]
    assert isinstance(late.errors[0], DeadlineExceeded)
    assert gone.errors
    assert not gone.answers
    assert patient.answers
    assert other.answers


def test_more_than_the_backlog_is_refused(
    searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    line = SearchLine(searching, later, backlog=2, cores=1)
    callers = [Caller() for _ in range(4)]
    for caller in callers[:3]:
        line.put(asking(queries(rng, 1)), caller)
    later.run()
    assert [len(c.answers) for c in callers[:3]] == [1, 1, 0]
    assert isinstance(callers[2].errors[0], QueueFull)
    line.put(asking(queries(rng, 1)), callers[3])
    later.run()
    assert callers[3].answers


def test_threads_that_only_refuse_refuse_all_that_wait(
    searching: SearchCalls, rng: np.random.Generator
) -> None:
    pool = HandlerPool(1, backlog=0)
    line = SearchLine(searching, pool, cores=1)
    busy, free = threading.Event(), threading.Event()
    pool.submit(lambda: (busy.set(), free.wait(10)))
    assert busy.wait(10)
    refused = Caller()
    line.put(asking(queries(rng, 1)), refused)
    assert refused.has_ended.wait(10)
    free.set()
    assert isinstance(refused.errors[0], QueueFull)
    pool.shutdown()


def test_a_failure_beyond_all_care_ends_no_line(
    searching: SearchCalls, later: Later, rng: np.random.Generator
) -> None:
    class Broken(Caller):
        def reply(self, message: Reply) -> None:
            raise KeyboardInterrupt

    line = SearchLine(searching, later, cores=1)
    line.put(asking(queries(rng, 128)), Broken())
    patient = Caller()
    line.put(asking(queries(rng, 128)), patient)
    line.put(asking(queries(rng, 128)), patient)
    with pytest.raises(KeyboardInterrupt):
        later.run()
    later.run()
    line.put(asking(queries(rng, 1)), patient)
    later.run()
    assert len(patient.answers) == 2  # the one that was made with the broken one is lost
