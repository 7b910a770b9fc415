"""JSON lines: the collection on the first, then a record on each."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeGuard

import numpy as np

from embedkit.data.records.header import read_header, written_header
from embedkit.errors import InvalidInput
from embedkit.types import Collection, Record

__all__ = ["read_jsonl", "write_jsonl"]

# The largest payload and vector that a server takes, as text, and then some.
_LINE_BYTES = 1 << 20


def write_jsonl(path: Path, collection: Collection, records: Iterable[Record]) -> int:
    """Write records and return their number; see ``write_records``."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"collection": written_header(collection)}) + "\n")
        for record in records:
            vector = [] if record.vector is None else record.vector.tolist()
            line = {
                "id": record.id,
                "vector": vector,
                "payload": record.payload,
                "sequence": record.sequence,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


@contextmanager
def read_jsonl(path: Path) -> Iterator[tuple[Collection, Iterator[Record]]]:
    """Open a file; see ``read_records``."""
    with path.open("rb") as file:
        header = _line(file, 0)
        if header is None:
            raise InvalidInput(f"expected a line about the collection in {path}, got none")
        yield read_header(header.get("collection")), _records(file)


def _records(file: IO[bytes]) -> Iterator[Record]:
    place = 0
    while (line := _line(file, place + 1)) is not None:
        id_, vector, payload = line.get("id"), line.get("vector"), line.get("payload")
        try:
            values = np.asarray(vector, np.float32)
        except (TypeError, ValueError):
            values = np.empty((0, 0), np.float32)
        if not isinstance(id_, str) or values.ndim != 1 or not _is_payload(payload):
            raise InvalidInput(
                f"expected an id, a vector of numbers and a payload in record {place}, got "
                f"others in line {place + 2}"
            )
        sequence = line.get("sequence")
        yield Record(id_, values, payload, sequence if isinstance(sequence, int) else 0)
        place += 1


def _is_payload(value: object) -> TypeGuard[dict[str, object] | None]:
    return value is None or isinstance(value, dict)


def _line(file: IO[bytes], number: int) -> dict[str, object] | None:
    """The next line's object; None at the end."""
    data = file.readline(_LINE_BYTES + 1)
    if not data:
        return None
    if len(data) > _LINE_BYTES:
        raise InvalidInput(
            f"expected lines of at most {_LINE_BYTES} bytes, got a longer one: {number + 1}"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"expected JSON in line {number + 1}, got {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"expected a JSON object in line {number + 1}, got {data[:40]!r}")
    return value
