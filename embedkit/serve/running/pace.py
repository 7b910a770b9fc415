"""How fast an engine is, guessed so that it is rather thought too fast than too slow."""

__all__ = ["Pace"]

# Of the difference to a slower batch; a single slow one says little.
_RISE = 0.1


class Pace:
    """Seconds per image in full batches, from the batches that were run.

    It falls at once and rises slowly, so that a deadline is given up only when even a good day
    of this engine would miss it. Batches that are less than half full cost more per image than
    a long line would, and teach only how fast the engine is at least.

    Args:
        max_batch_size: Images of a full batch.
        sessions: Batches that run at the same time.
    """

    def __init__(self, max_batch_size: int, *, sessions: int = 1) -> None:
        self.image_s = 0.0
        self._max_batch_size = max_batch_size
        self._sessions = sessions

    def learn(self, size: int, seconds: float) -> None:
        """Take note of a batch.

        Args:
            size: Its images.
            seconds: How long it kept its session.
        """
        sample, known = seconds / size / self._sessions, self.image_s
        if known and sample < known:
            self.image_s = sample
        elif 2 * size >= self._max_batch_size:
            self.image_s = known + _RISE * (sample - known) if known else sample
