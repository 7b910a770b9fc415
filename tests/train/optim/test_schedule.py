"""Schedules against their equations."""

import math

import pytest

from embedkit.errors import InvalidInput
from embedkit.train.optim.schedule import infinite_rate, rate_at
from embedkit.train.settings import ScheduleSection


def rates(settings, *, total, warmup, peak=2.0):
    return [
        rate_at(step, settings, total=total, warmup=warmup, peak=peak) for step in range(total)
    ]


def test_a_constant_schedule_only_warms_up():
    settings = ScheduleSection(kind="constant")
    assert rates(settings, total=5, warmup=2) == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert rates(settings, total=2, warmup=0) == [2.0, 2.0]


def test_the_default_is_half_a_cosine():
    found = rates(ScheduleSection(final_lr=0.1), total=12, warmup=2)
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 10)) / 2) for k in range(10)]
    assert found == pytest.approx([1.0, 2.0, *expected])


def test_infinite_goes_through_its_four_phases():
    """Singh et al., equation 1: warm-up, cosine cooldown, constant, exponential annealing."""
    settings = ScheduleSection(
        kind="infinite", cooldown=0.2, constant_lr=0.5, anneal=0.1, final_lr=0.05
    )
    found = rates(settings, total=110, warmup=10)
    assert found[:10] == pytest.approx([2 * (k + 1) / 10 for k in range(10)])
    cooling = [2 * (0.5 + 0.25 * (1 + math.cos(math.pi * k / 20))) for k in range(20)]
    assert found[10:30] == pytest.approx(cooling)
    assert found[30:100] == [1.0] * 70
    assert found[100:] == pytest.approx([0.1 ** ((k + 1) / 10) for k in range(10)])


def test_the_held_phase_does_not_depend_on_the_end():
    assert {infinite_rate(s, cooldown=7, constant=0.3) for s in (7, 100, 10**9)} == {0.3}


def test_without_annealing_it_ends_at_the_held_rate():
    settings = ScheduleSection(kind="infinite", anneal=0.0)
    assert rates(settings, total=40, warmup=0)[-1] == pytest.approx(2 * 0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "infinite"}, "final_lr above 0"),
        ({"cooldown": 0.9, "anneal": 0.2}, "add up to at most 1"),
        ({"cooldown": -0.1}, "of at least 0"),
        ({"constant_lr": 0.0}, "constant_lr"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        ScheduleSection(**values)
