"""The parser of filters, by recursive descent.

either     = both {"or" both}
both       = single {"and" single}
single     = "not" single | "(" either ")" | "exists" key | comparison
comparison = key ("=" | "!=") value | key ("<" | "<=" | ">" | ">=") (number | text)
           | key "in" "(" value {"," value} ")" | key "like" text
key        = name {"." name}              name  = word | quoted
value      = text | number | "true" | "false" | "null"
"""

from collections.abc import Callable
from difflib import get_close_matches
from math import isfinite

from embedkit.errors import InvalidInput
from embedkit.retrieve.filter.expression import (
    All,
    AnyOf,
    Exists,
    Expression,
    Key,
    Leaf,
    Like,
    Not,
    OneOf,
    Ordered,
    Scalar,
    Unequal,
)
from embedkit.retrieve.filter.tokens import Token, refused, tokens

__all__ = ["parse"]

MAX_BYTES = 16 << 10
MAX_DEPTH = 64
MAX_VALUES = 1_000
MAX_COMPARISONS = 500
MAX_PATTERN = 256
_MAX_DIGITS = 400
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_OPERATORS = "one of = != < <= > >= in like"
_MEANT = {
    "==": "=",
    "<>": "!=",
    "=>": ">=",
    "=<": "<=",
    "!": "!=' or 'not",
    "~": "like",
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "is": "=",
    "equals": "=",
    "contains": "like",
    "between": ">=",
}


def parse(text: str) -> Expression:
    """Read a filter.

    Raises:
        InvalidInput: If it is no filter, with the position of what does not fit, or is larger
            than 16 KiB, 64 levels, 500 comparisons or 1,000 values in one list.

    Example:
        >>> parse("not exists sold.at")
        Not(operand=Exists(key=('sold', 'at')))
        >>> parse("year >= 2020")
        Ordered(key=('year',), operator='>=', bound=2020)
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"expected a filter that UTF-8 can hold, got {error}") from None
    if size > MAX_BYTES:
        raise InvalidInput(f"expected a filter of at most {MAX_BYTES} bytes, got {size}")
    return _Parser(list(tokens(text))).whole()


class _Parser:
    """Reads tokens from left to right, one ahead."""

    def __init__(self, given: list[Token]) -> None:
        self._tokens = given
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Expression:
        found = self._either()
        if self._next.kind != "end":
            raise refused("'and', 'or' or the end", self._next, _meant(self._next, "and", "or"))
        return found

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        taken = self._next
        self._at += taken.kind != "end"
        return taken

    def _took(self, kind: str, content: str) -> bool:
        """Whether the next token is this one; it is then taken."""
        fits = self._next.kind == kind and self._next.content == content
        self._at += fits
        return fits

    def _need(self, mark: str) -> None:
        if not self._took("mark", mark):
            raise refused(repr(mark), self._next)

    def _either(self) -> Expression:
        parts = self._parts("or", self._both)
        return AnyOf(parts) if len(parts) > 1 else parts[0]

    def _both(self) -> Expression:
        parts = self._parts("and", self._single)
        return All(parts) if len(parts) > 1 else parts[0]

    def _parts(self, word: str, part: Callable[[], Expression]) -> tuple[Expression, ...]:
        parts = [part()]
        while self._took("keyword", word):
            parts.append(part())
        return tuple(parts)

    def _single(self) -> Expression:
        token = self._next
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refused(f"at most {MAX_DEPTH} levels of 'not' and '('", token)
        found: Expression
        if self._took("keyword", "not"):
            found = Not(self._single())
        elif self._took("mark", "("):
            found = self._either()
            self._need(")")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Leaf:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise refused(f"at most {MAX_COMPARISONS} comparisons", self._next)
        if self._took("keyword", "exists"):
            return Exists(self._key())
        if self._next.kind == "text":
            raise refused(
                "a key", self._next, "write the key on the left, in double quotes if it is odd"
            )
        key = self._key()
        operator = self._take()
        if operator.kind not in ("operator", "keyword"):
            raise refused(_OPERATORS, operator, _meant(operator, "in", "like"))
        return self._compared(key, operator)

    def _compared(self, key: Key, operator: Token) -> Leaf:
        match operator.content:
            case "=":
                return OneOf(key, (self._value(),))
            case "!=":
                return Unequal(key, self._value())
            case "<" | "<=" | ">" | ">=":
                return Ordered(key, operator.content, self._bound(operator.content))
            case "in":
                return OneOf(key, self._list())
            case "like":
                return Like(key, self._pattern())
            case "not":
                raise refused(_OPERATORS, operator, "write not (key in (...))")
            case _:
                raise refused(_OPERATORS, operator, _meant(operator))

    def _key(self) -> Key:
        names = [self._name()]
        while self._took("mark", "."):
            names.append(self._name())
        return tuple(names)

    def _name(self) -> str:
        token = self._take()
        if token.kind in ("word", "quoted"):
            return token.content
        way_out = f'write "{token.shown}"' if token.kind in ("keyword", "number") else ""
        raise refused("a key", token, way_out)

    def _value(self) -> Scalar:
        token = self._take()
        if token.kind == "text":
            return token.content
        if token.kind == "number":
            return _number(token)
        if token.kind == "keyword" and token.content in _CONSTANTS:
            return _CONSTANTS[token.content]
        text = token.content.replace("'", "''")
        is_short = token.kind in ("word", "quoted") and len(text) < 40
        way_out = f"did you mean '{text}'?" if is_short else ""
        raise refused("a value: 'text', a number, true, false or null", token, way_out)

    def _bound(self, operator: str) -> str | int | float:
        token = self._next
        value = self._value()
        if value is None or isinstance(value, bool):
            raise refused(f"a number or 'text' after {operator}", token, "use = or !=")
        return value

    def _list(self) -> tuple[Scalar, ...]:
        self._need("(")
        values = [self._value()]
        while self._took("mark", ","):
            if len(values) == MAX_VALUES:
                raise refused(f"at most {MAX_VALUES} values in a list", self._next)
            values.append(self._value())
        self._need(")")
        return tuple(values)

    def _pattern(self) -> str:
        token = self._take()
        if token.kind != "text":
            raise refused("a 'text' with % and _ after like", token)
        if len(token.content) > MAX_PATTERN:
            raise refused(f"a pattern of at most {MAX_PATTERN} characters", token)
        return token.content


def _number(token: Token) -> int | float:
    if len(token.content) <= _MAX_DIGITS:
        if token.content.lstrip("-").isdigit():
            return int(token.content)
        if isfinite(number := float(token.content)):
            return number
    raise refused("a number that float64 can hold", token)


def _meant(token: Token, *words: str) -> str:
    """A guess at what was meant, or nothing."""
    written = token.content.lower()
    meant = _MEANT.get(written) or next(iter(get_close_matches(written, words, 1, 0.5)), "")
    return f"did you mean '{meant}'?" if meant and token.kind != "text" else ""
