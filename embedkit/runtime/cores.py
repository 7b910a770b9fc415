"""How many cores this process may really use."""

import math
import os
from pathlib import Path

__all__ = ["usable_cores"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = _QUOTA) -> int:
    """Cores by affinity and by the container's CPU quota, at least 1.

    A container limited to two cores of a large machine sees all of them; as many threads would
    wait for one another most of the time.

    Args:
        quota_file: The control group's ``cpu.max``: quota and period in microseconds, or
            ``max``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        limit = cores or 1
    return max(1, min(cores or 1, limit))
