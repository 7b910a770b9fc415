"""Ids in memory: what a slot is called, across parts, repetitions and packing."""

import threading
import tracemalloc

import numpy as np
import pytest

from embedkit.retrieve import names as module
from embedkit.retrieve.names import Names


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_ROWS", 7)
    monkeypatch.setattr(module, "_SPARE_ROWS", 5)


def test_names_are_found_in_any_order_across_parts(rng):
    slots = np.cumsum(rng.integers(1, 5, 50))
    texts = [f"ä{'x' * int(rng.integers(0, 9))}{i}" for i in range(50)]
    texts[3] = ""
    names = Names()
    for start in range(0, 50, 3):
        names = names.added(slots[start : start + 3], texts[start : start + 3])
    assert names.count == 50
    for order in (
        np.arange(50),
        rng.permutation(50),
        np.array([9, 9, 0, 49]),
        np.array([], int),
    ):
        assert names.of(slots[order]) == [texts[i] for i in order]


def test_who_reads_old_names_is_not_disturbed_and_what_was_not_committed_is_overwritten():
    old = Names().added(np.array([1, 2]), ["a", "bb"])
    lost = old.added(np.array([3, 4]), ["never", "committed"])
    new = old.added(np.array([3]), ["c"])
    assert lost.count == 4
    assert old.of(np.array([2, 1])) == ["bb", "a"]
    assert new.of(np.array([1, 2, 3])) == ["a", "bb", "c"]


def test_packing_keeps_the_names_of_the_living_alone():
    slots = np.arange(1, 101)
    names = Names().added(slots, [str(i) for i in slots])
    alive = slots[::9]
    assert names.wants_packing(len(alive))
    packed = names.only(alive)
    assert packed.count == len(alive)
    assert not packed.wants_packing(len(alive))
    assert packed.of(alive) == [str(i) for i in alive]
    more = packed.added(np.array([200]), ["new"])
    assert more.of(np.array([200, 1])) == ["new", "1"]


def test_reading_beside_writing(rng):
    names = [Names().added(np.arange(1, 6), list("abcde"))]
    wrong: list[list[str]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = names[0].of(np.array([1, 3, 5]))
            if found != ["a", "c", "e"]:
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for slot in range(6, 1500):
        names[0] = names[0].added(np.array([slot]), [str(slot)])
    stop.set()
    reader.join()
    assert not wrong
    assert names[0].of(np.array([1499, 6])) == ["1499", "6"]


@pytest.mark.parametrize("room", [0, 2])
def test_many_names_are_cut_out_in_parts(monkeypatch, rng, room):
    texts = [f"ä{i}" for i in range(60)]
    names = Names().added(np.arange(1, 61), texts)
    slots = rng.integers(1, 61, 501)
    whole, lengths = names.packed(slots, room)
    assert len(whole) == names.size(slots) + room * len(slots) == int((lengths + room).sum())
    monkeypatch.setattr(module, "_NAMES_AT_ONCE", 100)
    ends = np.cumsum(lengths + room).tolist()
    parts, again = names.packed(slots, room)
    assert np.array_equal(lengths, again)
    spans = zip([0, *ends], ends, slots.tolist(), strict=False)
    assert all(bytes(parts[a + room : b]).decode() == texts[s - 1] for a, b, s in spans)
    assert names.size(slots[:0]) == 0


def test_making_long_names_takes_little_more_than_they_are():
    names = Names().added(np.arange(1, 101), [f"{i:0500d}" for i in range(100)])
    slots = np.resize(np.arange(1, 101), 40_000)
    tracemalloc.start()
    assert len(names.of(slots)) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * names.size(slots)
