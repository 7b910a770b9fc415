"""Answers that are too large are refused before they are made."""

import tracemalloc

import numpy as np
import pytest

from embedkit.errors import MessageTooLarge
from embedkit.retrieve.names import HitTable, Names
from embedkit.serve.services.index.messages import check_hits


def table(ids: list[str], shape: tuple[int, int]) -> HitTable:
    names = Names().added(np.arange(1, len(ids) + 1), ids)
    slots = np.resize(np.arange(1, len(ids) + 1), shape)
    return HitTable(names, slots, np.zeros(shape, np.float32))


def test_long_ids_are_refused_before_they_are_made() -> None:
    found = table([f"{i:0512d}" for i in range(200)], (100, 200))
    tracemalloc.start()
    with pytest.raises(MessageTooLarge, match="got about 10720000"):
        check_hits(found, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_the_bytes_of_the_ids_decide() -> None:
    found = table(["ä", "b"], (3, 2))  # 3 bytes and 24 for each
    check_hits(found, 3 * 3 + 6 * 24)
    with pytest.raises(MessageTooLarge, match=f"got about {3 * 3 + 6 * 24}"):
        check_hits(found, 3 * 3 + 6 * 24 - 1)
