"""The guess of an engine's speed: too fast rather than too slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.serve.running.pace import Pace


def test_nothing_is_known_until_a_batch_was_at_least_half_full():
    pace = Pace(8)
    pace.learn(3, 30.0)
    assert pace.image_s == 0
    pace.learn(4, 4.0)
    assert pace.image_s == 1.0


def test_it_falls_at_once_and_rises_slowly():
    pace = Pace(8)
    for seconds, expected in ((8.0, 1.0), (4.0, 0.5), (8.0, 0.55), (1.0, 0.125)):
        pace.learn(8, seconds)
        assert pace.image_s == pytest.approx(expected)


def test_small_batches_teach_only_that_it_is_faster():
    pace = Pace(8)
    pace.learn(8, 8.0)
    for _ in range(100):
        pace.learn(1, 5.0)
    assert pace.image_s == 1.0
    pace.learn(1, 0.5)
    assert pace.image_s == 0.5


def test_sessions_share_the_work():
    pace = Pace(8, sessions=4)
    pace.learn(8, 8.0)
    assert pace.image_s == 0.25


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0.01, 10)), min_size=1, max_size=30))
def test_it_is_never_slower_than_the_slowest_batch_nor_than_the_last(batches):
    pace = Pace(8)
    for size, seconds in batches:
        before = pace.image_s
        pace.learn(size, seconds)
        assert pace.image_s <= max(before, seconds / size) * (1 + 1e-9)
        assert pace.image_s <= max(s / n for n, s in batches) * (1 + 1e-9)
