"""Recipes as text: the TOML that is written, and ``key=value`` overrides of what was read."""

import json
import tomllib
from collections.abc import Mapping, Sequence

from embedkit.errors import InvalidInput

__all__ = ["apply_override", "dump_toml", "parse_toml"]

Table = dict[str, object]


def parse_toml(text: str, where: str) -> Table:
    """Parse TOML.

    Raises:
        InvalidInput: With the file and the line that is wrong.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"expected TOML in {where}, got {error}") from error


def apply_override(table: Table, override: str) -> None:
    """Set one value of a nested table in place.

    Args:
        table: What was read from the recipe.
        override: ``a.b=value``; the value is TOML, or else taken as a plain string. A number
            in the path counts list entries: ``augmentation.0.size=[0.4, 1.0]``.

    Raises:
        InvalidInput: If there is no ``=``, or the path leads through what is no table.

    Example:
        >>> table = {"schedule": {"epochs": 3}}
        >>> apply_override(table, "schedule.epochs=5")
        >>> table
        {'schedule': {'epochs': 5}}
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InvalidInput(f"expected key=value such as seed=1, got {override!r}")
    node: object = table
    for key in keys[:-1]:
        node = _child(node, key, override)
    value = _value(text.strip())
    if isinstance(node, dict):
        node[keys[-1]] = value
    elif isinstance(node, list) and keys[-1].isdecimal() and int(keys[-1]) < len(node):
        node[int(keys[-1])] = value
    else:
        raise InvalidInput(f"expected {path!r} to lead to a table, got {node!r}")


def dump_toml(table: Mapping[str, object]) -> str:
    """Write a table of plain values, tables and lists of tables; the same table, same text."""
    plain = {k: v for k, v in table.items() if not _is_table(v) and not _is_tables(v)}
    lines = [f"{_key(k)} = {_inline(v)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{_key(key)}]"]
            lines += [f"{_key(k)} = {_inline(v)}" for k, v in value.items()]
        elif _is_tables(value):
            for entry in _sequence(value):
                lines += ["", f"[[{_key(key)}]]"]
                lines += [f"{_key(k)} = {_inline(v)}" for k, v in _mapping(entry).items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _child(node: object, key: str, override: str) -> object:
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    if isinstance(node, dict):
        return node.setdefault(key, {})
    raise InvalidInput(f"expected {override!r} to lead through tables, got {node!r} at {key!r}")


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_table, value))


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isascii() and bare.isalnum() else _string(key)


def _string(text: str) -> str:
    """A TOML basic string: a JSON string without surrogate pairs, and with DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    raise InvalidInput(f"expected a value that TOML can hold, got {value!r}")
