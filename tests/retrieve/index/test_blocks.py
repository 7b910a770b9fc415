"""Blocks share memory between versions, and no version disturbs an older one."""

import numpy as np
import pytest

from embedkit.retrieve.index import blocks
from embedkit.retrieve.index.blocks import Block, filled, packed, removed
from embedkit.retrieve.index.storage import Storage

DIM = 3
STORAGE = Storage("float32", DIM)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1024 * 4 * DIM)


def rows(start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    slots = np.arange(start, start + count)
    return slots, np.repeat(slots[:, None], DIM, axis=1).astype(np.float32)


def content(held: tuple[Block, ...]) -> dict[int, float]:
    """Slot to first value of everything alive; the three values of a row must agree."""
    found: dict[int, float] = {}
    for block in held:
        slots, vectors = block.living()
        assert (vectors == vectors[:, :1]).all()
        assert (np.diff(slots) > 0).all()
        found.update(zip(slots.tolist(), vectors[:, 0].tolist(), strict=True))
    return found


def test_rows_flow_over_into_new_blocks() -> None:
    held = filled((), [rows(0, 700), rows(700, 700), rows(1400, 3)], STORAGE)
    assert [b.count for b in held] == [1024, 379]
    assert content(held) == {i: float(i) for i in range(1403)}


def test_an_older_version_keeps_what_it_had() -> None:
    first = filled((), [rows(0, 10)], STORAGE)
    second = filled(first, [rows(10, 10)], STORAGE)
    third = removed(second, np.array([3, 12, 99]), STORAGE)
    assert content(first) == {i: float(i) for i in range(10)}
    assert content(second) == {i: float(i) for i in range(20)}
    assert set(content(third)) == set(range(20)) - {3, 12}
    assert second[0].rows is first[0].rows, "versions share their memory"
    assert third[0].rows is first[0].rows


def test_a_crowded_block_is_copied_without_its_dead() -> None:
    held = filled((), [rows(0, 1024), rows(1024, 1024)], STORAGE)
    after = removed(held, np.arange(0, 300), STORAGE)
    assert after[0].dead.size == 0
    assert after[0].count == 724
    assert after[1] is held[1], "the other block is not touched"
    assert content(after) == {i: float(i) for i in range(300, 2048)}
    assert held[0].count == 1024


def test_few_dead_stay_in_place_and_are_counted() -> None:
    held = filled((), [rows(0, 1024)], STORAGE)
    for i in range(5):
        held = removed(held, np.array([i * 7]), STORAGE)
    assert held[0].dead.tolist() == [0, 7, 14, 21, 28]
    assert held[0].alive == 1019


def test_empty_and_scattered_blocks_do_not_pile_up() -> None:
    held: tuple[Block, ...] = ()
    for start in range(0, 20 * 1024, 1024):
        held = filled(held, [rows(start, 1024)], STORAGE)
    left = np.arange(0, 20 * 1024, 64)
    held = removed(held, np.setdiff1d(np.arange(20 * 1024), left), STORAGE)
    assert len(held) <= 3
    assert content(held) == {i: float(i) for i in left.tolist()}
    assert removed(held, left, STORAGE) == ()


def test_packing_keeps_what_is_alive() -> None:
    held = removed(filled((), [rows(0, 3000)], STORAGE), np.arange(0, 3000, 100), STORAGE)
    tight = packed(held, STORAGE)
    assert content(tight) == content(held)
    assert all(b.dead.size == 0 for b in tight)
