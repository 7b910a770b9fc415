"""Options that are lists of names."""

from collections.abc import Iterable

__all__ = ["names_in"]


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of an option that is given once or more, with commas between them.

    Each name comes once, in the order of its first place; spaces around it do not count.
    """
    parts = (part.strip() for text in texts for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))
