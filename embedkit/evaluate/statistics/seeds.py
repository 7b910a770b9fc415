"""Several training runs: their spread is not the error of sampling test images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics.intervals import LEVEL, Interval

__all__ = ["Spread", "over_seeds"]


@dataclass(frozen=True)
class Spread:
    """One metric over several training runs that saw the same test images.

    Attributes:
        mean: Over the runs.
        sd_seeds: Standard deviation over the runs, with n - 1.
        ci_seeds: 95 % interval of the mean over all seeds, on these test images (Student's t).
        ci_sampling: Mean of the runs' own intervals: what other test images would change. None
            where a run has none.
        n_seeds: Runs.
    """

    mean: float
    sd_seeds: float
    ci_seeds: Interval
    ci_sampling: Interval | None
    n_seeds: int


def over_seeds(
    values: Sequence[float], intervals: Sequence[Interval | None], *, level: float = LEVEL
) -> Spread:
    """Keep the spread over runs apart from the error of sampling.

    Args:
        values: The metric of each run, at least 2.
        intervals: Its interval in each run.
        level: Coverage of ``ci_seeds``.

    Raises:
        InvalidInput: If there are fewer than two runs, or not one interval for each.
    """
    from scipy.special import stdtrit

    count = len(values)
    if count < 2 or len(intervals) != count:
        raise InvalidInput(f"expected at least 2 runs with an interval each, got {count}")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * sd / math.sqrt(count)
    given = [interval for interval in intervals if interval is not None]
    sampling = None
    if len(given) == count:
        low, high = np.mean(given, axis=0)
        sampling = float(low), float(high)
    return Spread(mean, sd, (mean - half, mean + half), sampling, count)
