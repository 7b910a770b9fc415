"""Arguments: the check of ranges that every objective makes when it is built."""

from embedkit.errors import InvalidInput

__all__ = ["require"]


def require(is_right: bool, expected: str, got: object) -> None:
    """Refuse an argument that is out of range.

    Args:
        is_right: Whether it is in range.
        expected: The range in words, e.g. ``a temperature above 0``.
        got: The value.

    Raises:
        InvalidInput: If it is not.
    """
    if not is_right:
        raise InvalidInput(f"expected {expected}, got {got!r}")
