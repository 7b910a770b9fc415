"""When to send a request again: the same rule for both clients, without a clock of its own."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from embedkit.errors import (
    DeadlineExceeded,
    EmbedkitError,
    QueueFull,
    RateLimited,
    Unavailable,
)

__all__ = ["Attempts", "RetryPolicy"]


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Attributes:
        timeout_s: Seconds that one request may take, retries included; None for no limit.
        retry_s: Seconds after its first failure in which a request is sent again; 0 never.
        first_s: Upper bound of the first random pause; it doubles with each further one.
        longest_s: Upper bound of any random pause.
    """

    timeout_s: float | None = 60.0
    retry_s: float = 10.0
    first_s: float = 0.05
    longest_s: float = 2.0


class Attempts:
    """The tries of one request.

    Only failures that happened before the work was done, or work that may be done twice, are
    tried again: an unreachable or draining server, a full queue, and a spent rate.

    Args:
        policy: How long to try.
        clock: Monotonic seconds.
        draw: A random fraction in [0, 1).
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._draw = draw
        self._deadline = None if policy.timeout_s is None else clock() + policy.timeout_s
        self._give_up: float | None = None
        self.failures = 0

    def timeout_s(self) -> float | None:
        """Seconds left for the next try, or None without a limit.

        Raises:
            DeadlineExceeded: If none are left.
        """
        if self._deadline is None:
            return None
        left = self._deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded(
                f"expected an answer in {self._policy.timeout_s} s, got none"
            )
        return left

    def pause_s(self, error: EmbedkitError, wanted_s: float | None) -> float:
        """Return the seconds to wait before trying again.

        Args:
            error: What the last try ended with.
            wanted_s: The pause that the server asks for, or None.

        Raises:
            EmbedkitError: ``error`` itself, when trying again is no use or time is up.
        """
        now = self._clock()
        if not isinstance(error, QueueFull | RateLimited | Unavailable):
            raise error
        if self._give_up is None:
            self._give_up = now + self._policy.retry_s
        bound = min(self._policy.longest_s, self._policy.first_s * 2.0**self.failures)
        self.failures += 1
        # The random part is drawn over the whole range, so that clients that failed together
        # do not come back together.
        pause = (wanted_s or 0.0) + self._draw() * bound
        end = self._give_up if self._deadline is None else min(self._give_up, self._deadline)
        if now + pause >= end:
            raise error
        return pause
