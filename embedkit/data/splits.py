"""Which split a DATA string means."""

from collections.abc import Collection

from embedkit.errors import InvalidInput

__all__ = ["choose_split"]


def choose_split(asked: str | None, found: Collection[str], source: str) -> str:
    """The split asked for; without one ``train``, or the only one there is.

    Args:
        asked: Name after the colon of a DATA string, or None.
        found: Splits of the source; at least one.
        source: What they belong to, for the message.

    Raises:
        InvalidInput: If there is no such split, or none was asked for and several are there.
    """
    if asked is not None and asked in found:
        return asked
    if asked is None and "train" in found:
        return "train"
    if asked is None and len(found) == 1:
        return next(iter(found))
    wanted = "one of its splits after a colon" if asked is None else f"a split {asked!r}"
    raise InvalidInput(f"expected {wanted} of {source}, got the splits {', '.join(found)}")
