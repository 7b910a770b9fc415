"""A call of either client by its name, and images to ask about."""

from collections.abc import Callable
from typing import Any

import numpy as np

Ask = Callable[..., Any]


def images(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
