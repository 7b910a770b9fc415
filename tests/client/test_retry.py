"""When a request is sent again, on a clock that tests move."""

import pytest

from embedkit.client.retry import Attempts, RetryPolicy
from embedkit.errors import (
    DeadlineExceeded,
    EmbedkitError,
    InvalidInput,
    MessageTooLarge,
    QueueFull,
    Unavailable,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(clock: Clock, draw: float = 0.5, **policy: float | None) -> Attempts:
    return Attempts(RetryPolicy(**policy), clock=clock, draw=lambda: draw)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [Unavailable("down"), QueueFull("full")])
def test_pauses_grow_and_end_after_ten_seconds(error: EmbedkitError) -> None:
    clock = Clock()
    tries = attempts(clock)
    pauses: list[float] = []

    def go_on() -> None:
        while True:
            pauses.append(tries.pause_s(error, None))
            clock.now += pauses[-1]

    with pytest.raises(type(error)) as caught:
        go_on()
    assert caught.value is error
    assert pauses[:6] == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == 1.0
    assert 8 < clock.now - 100 <= 10


def test_the_pause_is_drawn_over_the_whole_range() -> None:
    assert attempts(Clock(), draw=0.0).pause_s(Unavailable(""), None) == 0.0
    assert attempts(Clock(), draw=0.999).pause_s(Unavailable(""), None) == pytest.approx(
        0.05, 1e-2
    )


def test_the_servers_wish_is_the_least_pause() -> None:
    tries = attempts(Clock(), draw=0.5)
    assert tries.pause_s(QueueFull(""), 0.3) == pytest.approx(0.325)
    with pytest.raises(QueueFull):
        tries.pause_s(QueueFull(""), 60.0)


@pytest.mark.parametrize("error", [InvalidInput(""), MessageTooLarge(""), DeadlineExceeded("")])
def test_other_errors_are_not_repeated(error: EmbedkitError) -> None:
    with pytest.raises(type(error)):
        attempts(Clock()).pause_s(error, 0.1)


def test_no_time_for_retries_means_none() -> None:
    with pytest.raises(Unavailable):
        attempts(Clock(), retry_s=0.0).pause_s(Unavailable(""), None)


def test_the_time_counts_from_the_first_failure() -> None:
    clock = Clock()
    tries = attempts(clock, timeout_s=None)
    clock.now += 1000
    assert tries.pause_s(Unavailable(""), None) > 0
    assert tries.timeout_s() is None


def test_the_deadline_counts_retries_in() -> None:
    clock = Clock()
    tries = attempts(clock, timeout_s=3.0)
    clock.now += 1
    assert tries.timeout_s() == pytest.approx(2.0)
    with pytest.raises(Unavailable):
        tries.pause_s(Unavailable(""), 2.5)
    clock.now += 2
    with pytest.raises(DeadlineExceeded, match=r"3\.0 s"):
        tries.timeout_s()
