"""A failing batch is taken apart until the images at fault stand alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.serve.batcher import Batcher, BatchLimits
from embedkit.serve.running.isolation import run_isolating


def batch_of(sizes):
    batcher: Batcher[list[str], list[str]] = Batcher(BatchLimits(200, 200, 10_000))
    for index, count in enumerate(sizes):
        names = [f"{index}:{i}" for i in range(count)]
        batcher.offer(names, count, count, on_finish=lambda job: None)
    return batcher.take()


def names(batch):
    return [n for s in batch.slices for n in s.payload[s.start : s.stop]]


class Engine:
    """Fails when a poisonous image is in the batch."""

    def __init__(self, poison=()):
        self.poison = set(poison)
        self.runs = 0

    def __call__(self, batch):
        self.runs += 1
        bad = self.poison.intersection(names(batch))
        if bad:
            raise RuntimeError(f"cannot run {sorted(bad)}")
        return names(batch)


def test_a_good_batch_runs_once():
    engine = Engine()
    (outcome,) = run_isolating(batch_of([2, 3]), engine)
    assert outcome.result == ["0:0", "0:1", "1:0", "1:1", "1:2"]
    assert engine.runs == 1


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), pick=st.integers(0, 10_000))
def test_one_poisonous_image_fails_alone_in_logarithmic_runs(sizes, pick):
    batch = batch_of(sizes)
    poison = names(batch)[pick % batch.size]
    engine = Engine([poison])
    outcomes = list(run_isolating(batch, engine))
    assert [n for o in outcomes for n in names(o.batch)] == names(batch)
    failed = [names(o.batch) for o in outcomes if o.error is not None]
    assert failed == [[poison]]
    assert all(o.result == names(o.batch) for o in outcomes if o.error is None)
    assert engine.runs <= 1 + 2 * (batch.size - 1).bit_length()


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_broken_engine_is_not_asked_for_ever(size):
    batch = batch_of([size])
    engine = Engine(names(batch))
    outcomes = list(run_isolating(batch, engine))
    assert all(isinstance(o.error, RuntimeError) for o in outcomes)
    assert [n for o in outcomes for n in names(o.batch)] == names(batch)
    assert engine.runs <= 1 + 2 * (size - 1).bit_length()
