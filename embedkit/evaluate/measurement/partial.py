"""Parts of a task that may fail without costing the rest."""

from collections.abc import Callable
from typing import TypeVar

from embedkit.errors import EmbedkitError, ModelChanged

__all__ = ["attempt"]

T = TypeVar("T")


def attempt(part: str, compute: Callable[[], T], warnings: list[str]) -> T | None:
    """Return what ``compute`` gives, or None with a warning that says which part is missing.

    Args:
        part: What is computed, as it should read in the warning.
        compute: The work.
        warnings: Appended to, once per sentence.

    Raises:
        ModelChanged: Always passed on, because nothing after it would be true.
    """
    try:
        return compute()
    except ModelChanged:
        raise
    except EmbedkitError as error:
        warning = f"no {part}: {error}"
        if warning not in warnings:
            warnings.append(warning)
        return None
