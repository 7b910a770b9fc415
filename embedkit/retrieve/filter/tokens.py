"""A filter's text as tokens."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from embedkit.errors import InvalidInput

__all__ = ["KEYWORDS", "Token", "refused", "tokens"]

KEYWORDS = ("and", "or", "not", "in", "like", "exists", "true", "false", "null")
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*+')
  | (?P<quoted>"(?:[^"]|"")*+")
  | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
  | (?P<word>[^\W\d][\w-]*)
  | (?P<operator><>|==|=>|=<|<=|>=|!=|&&|\|\||[=<>!~&|])
  | (?P<mark>[(),.])
  | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_SHOWN = 40


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: ``text quoted number word keyword operator mark end``.
        shown: As it was written, for messages.
        content: Without quotes; a keyword in lower case.
        position: Of its first character, from 1.
    """

    kind: str
    shown: str
    content: str
    position: int


def tokens(text: str) -> Iterator[Token]:
    """Cut a filter into tokens; the last one is of the kind ``end``.

    Raises:
        InvalidInput: At a character that starts no token, with its position.
    """
    start = 0
    while True:
        found = _TOKEN.match(text, start)
        if found is None:
            raise _untold(text, start)
        kind = str(found.lastgroup)
        content = shown = found[kind]
        if kind == "text":
            content = shown[1:-1].replace("''", "'")
        elif kind == "quoted":
            content = shown[1:-1].replace('""', '"')
        elif kind == "word" and shown.lower() in KEYWORDS:
            kind, content = "keyword", shown.lower()
        yield Token(kind, shown or "the end", content, found.start(found.lastgroup or 0) + 1)
        if kind == "end":
            return
        start = found.end()


def refused(expected: str, got: Token, way_out: str = "") -> InvalidInput:
    """The error for a token that does not fit."""
    shown = got.shown if len(got.shown) <= _SHOWN else got.shown[:_SHOWN] + "..."
    return _error(expected, shown if got.kind == "end" else repr(shown), got.position, way_out)


def _untold(text: str, start: int) -> InvalidInput:
    """The error for characters that start no token."""
    position = len(text) - len(text[start:].lstrip())
    character = text[position]
    if character in "'\"":
        shown = repr(text[position : position + _SHOWN])
        return _error(f"a closing {character}", shown, position + 1, "double it inside a text")
    return _error("a key, a value or an operator", repr(character), position + 1, "")


def _error(expected: str, got: str, position: int, way_out: str) -> InvalidInput:
    ending = f"; {way_out}" if way_out else ""
    return InvalidInput(
        f"expected {expected} at position {position} of the filter, got {got}{ending}"
    )
