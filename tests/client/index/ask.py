"""A call of either client by its name."""

from collections.abc import Callable
from typing import Any

Ask = Callable[..., Any]
