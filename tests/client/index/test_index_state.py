"""What Describe tells of an index, waiting until it is built, and limits: both clients."""

import threading

import numpy as np
import pytest

from embedkit.errors import CollectionFull, DeadlineExceeded, InvalidInput
from embedkit.retrieve.index import rebuild
from embedkit.types import CollectionLimits
from tests.client.index.ask import Ask

DIM = 8


def names(count: int) -> list[str]:
    return [f"id-{i}" for i in range(count)]


def test_an_index_is_told_and_waited_for(
    ask: Ask, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "LEAST", 200)
    may_build, build = threading.Event(), rebuild.build_segment

    def later(*arguments):
        may_build.wait(60)
        return build(*arguments)

    monkeypatch.setattr(rebuild, "build_segment", later)
    base = rng.standard_normal((300, DIM)).astype(np.float32)
    assert ask("create_collection", "c", dim=DIM, kind="ivf_flat").index is None
    ask("upsert", "c", names(150), vectors=base[:150])
    few = ask("wait_until_built", "c", 60).index
    assert (few.kind, few.is_building, few.tail, few.builds) == ("flat", False, 150, 0)
    assert few.sequence == 1
    assert few.memory_bytes >= 150 * DIM * 4
    ask("upsert", "c", names(300)[150:], vectors=base[150:])
    try:
        assert ask("describe", "c").index.is_building, "from the commit on"
        with pytest.raises(DeadlineExceeded, match=r"index of 'c' .* within 0.05 s"):
            ask("wait_until_built", "c", 0.05)
    finally:
        may_build.set()
    built = ask("wait_until_built", "c", 60)
    state = built.index
    assert (state.kind, state.indexed, state.tail, state.removed) == ("ivf_flat", 300, 0, 0)
    assert (state.is_building, state.builds, state.error) == (False, 1, "")
    assert state.sequence == built.sequence == 2
    ask("delete", "c", ["id-0", "id-1"])
    ask("upsert", "c", ["id-2", "new"], vectors=base[:2])
    after = ask("describe", "c")
    assert (after.index.tail, after.index.removed, after.index.indexed) == (2, 3, 300)
    assert (after.sequence, after.index.sequence, after.count) == (4, 2, 299)
    assert all(c.index is None for c in ask("collections"))


def test_limits_are_kept_told_and_enforced(ask: Ask, rng: np.random.Generator) -> None:
    base = rng.standard_normal((10, DIM)).astype(np.float32)
    limits = CollectionLimits(vectors=5, payload_bytes=16)
    made = ask("create_collection", "c", dim=DIM, limits=limits)
    assert made.limits == limits
    assert ask("create_collection", "free", dim=DIM).limits == CollectionLimits()
    ask("upsert", "c", names(4), vectors=base[:4])
    with pytest.raises(CollectionFull, match="at most 5 vectors in 'c', got 6"):
        ask("upsert", "c", ["id-3", "a", "b"], vectors=base[:3])
    assert ask("get", "c", ["a"]) == [None], "nothing of a refused write is stored"
    ask("upsert", "c", ["id-3", "a"], vectors=base[4:6])
    ask("upsert", "c", names(4), vectors=base[:4])
    assert ask("describe", "c").count == 5
    with pytest.raises(CollectionFull, match=r"at most 16 bytes .* at index 1"):
        ask("upsert", "c", names(2), vectors=base[:2], payloads=[{"a": 1}, {"a": "b" * 10}])
    ask("delete", "c", ["id-0"])
    ask("upsert", "c", ["new"], vectors=base[:1], payloads=[{"a": "b" * 7}])
    assert ask("describe", "c").limits == limits
    for wrong in (CollectionLimits(vectors=-1), CollectionLimits(payload_bytes=1 << 20)):
        with pytest.raises(InvalidInput, match="expected a limit of"):
            ask("create_collection", "d", dim=DIM, limits=wrong)
