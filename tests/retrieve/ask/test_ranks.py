"""Offsets, thresholds, ranges and groups read what they return, and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import Cancelled, MessageTooLarge
from embedkit.retrieve.ask import groups as module
from embedkit.retrieve.ask import window
from embedkit.retrieve.ask.groups import grouped
from embedkit.retrieve.ask.within import within
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.store import Hits, Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

COUNT = 200
BASE = np.stack([np.arange(COUNT), np.zeros(COUNT)], 1).astype(np.float32)
PAYLOADS = [json.dumps({"g": i % 5, "t": "a" * 2000}).encode() for i in range(COUNT)]
FEW = 50_000
"""Bytes of 24 payloads: enough for every answer here, and for no list of its candidates."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = LocalStore(tmp_path)
    opened.create(Collection("c", dim=2, metric="l2"))
    opened.upsert("c", [str(i) for i in range(COUNT)], BASE, PAYLOADS)
    yield opened
    opened.close()


def query(k: int, rows: int = 1, **options) -> Query:
    return Query(BASE[: 40 * rows : 40], k, with_vectors=True, answer_bytes=FEW, **options)


def behind(store: LocalStore) -> list[Hits]:
    return list(window.search(store, "c", query(2), offset=100).hits)


def above(store: LocalStore) -> list[Hits]:
    return list(window.search(store, "c", query(150, 4), threshold=-0.5).hits)


def ranged(store: LocalStore) -> list[Hits]:
    return list(within(store, "c", query(150, 4), -0.5)[0].hits)


def by_value(store: LocalStore) -> list[Hits]:
    found = grouped(store, "c", query(5), "g", 4)
    assert found.exact
    return [group.hits for group in found.groups[0]]


ASKS = {
    behind: [["100", "101"]],
    above: [["0"], ["40"], ["80"], ["120"]],
    ranged: [["0"], ["40"], ["80"], ["120"]],
    by_value: [[str(i + step) for step in range(0, 20, 5)] for i in range(5)],
}


@pytest.mark.parametrize("ask", ASKS)
def test_what_is_not_returned_does_not_count(
    store: LocalStore, ask: Callable[[LocalStore], list[Hits]]
) -> None:
    found = ask(store)
    assert [hits.ids for hits in found] == ASKS[ask]
    for hits in found:
        rows = [int(i) for i in hits.ids]
        assert hits.payloads == [PAYLOADS[row] for row in rows]
        assert np.array_equal(hits.vectors, BASE[rows])
        assert np.array_equal(hits.slots, np.array(rows) + 1)


@pytest.mark.parametrize("ask", ASKS)
def test_hits_that_are_replaced_before_they_are_read_are_searched_for_again(
    store: LocalStore, ask: Callable[[LocalStore], list[Hits]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write comes between; everything is of the state after it."""
    read = store.at
    new = [json.dumps({"g": i % 5, "t": "new"}).encode() for i in range(COUNT)]

    def overtaken(*arguments, **options):
        monkeypatch.setattr(store, "at", read)
        store.upsert("c", [str(i) for i in range(COUNT)], BASE, new)
        return read(*arguments, **options)

    monkeypatch.setattr(store, "at", overtaken)
    found = ask(store)
    assert [hits.ids for hits in found] == ASKS[ask]
    for hits in found:
        assert hits.payloads == [new[int(i)] for i in hits.ids]
        assert (hits.slots > COUNT).all()


@pytest.mark.parametrize("ask", ASKS)
def test_hits_that_keep_changing_are_read_by_the_store_itself(
    store: LocalStore, ask: Callable[[LocalStore], list[Hits]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [json.dumps({"g": i % 5}).encode() for i in range(COUNT)]
    read = store.at
    tries: list[int] = []

    def overtaken(*arguments, **options):
        tries.append(1)
        store.upsert("c", [str(i) for i in range(COUNT)], BASE, small)
        return read(*arguments, **options)

    monkeypatch.setattr(store, "at", overtaken)
    found = ask(store)
    assert len(tries) == 8
    assert [hits.ids for hits in found] == ASKS[ask]
    assert all(hits.payloads == [small[int(i)] for i in hits.ids] for hits in found)


def test_answers_that_are_too_large_are_refused(store: LocalStore) -> None:
    for act in (
        lambda: window.search(store, "c", query(30), offset=1),
        lambda: within(store, "c", query(30), -1e9),
        lambda: grouped(store, "c", query(5), "g", 6),
        # The same hits again and again, and ids alone.
        lambda: window.search(store, "c", Query(BASE, 2, answer_bytes=FEW), threshold=-1e9),
        lambda: grouped(
            store, "c", Query(BASE, 5, with_payload=False, answer_bytes=500), "g", 2
        ),
    ):
        with pytest.raises(MessageTooLarge):
            act()


def test_ranges_say_what_they_leave_out(store: LocalStore) -> None:
    answer, cut = within(store, "c", query(3, 2), -9.0)
    assert answer.ids == [["0", "1", "2"], ["40", "39", "41"]]
    assert cut == (True, True)
    assert within(store, "c", query(4), -9.0)[1] == (False,)
    assert within(store, "c", query(3), 1.0)[0].ids == [[]]


class Short(Patience):
    """Over when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.cancel()
        super().check()


def test_groups_are_given_up_and_read_each_payload_once(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More groups than there are: the candidates grow to all items, for each query."""
    many = Query(BASE[:50], 6, with_payload=False)
    with pytest.raises(Cancelled):
        grouped(store, "c", Query(BASE[:50], 6, patience=Short(40)), "g", 2)
    parsed: list[int] = []
    value = module._value

    def counted(*arguments):
        parsed.append(1)
        return value(*arguments)

    monkeypatch.setattr(module, "_value", counted)
    found = grouped(store, "c", many, "g", 2)
    assert [len(groups) for groups in found.groups] == [5] * 50
    assert len(parsed) == COUNT
