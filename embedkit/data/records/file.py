"""Files of records, whichever their format: chosen by the suffix, replaced as a whole."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from embedkit.data.records.jsonl import read_jsonl, write_jsonl
from embedkit.data.records.npz import read_npz, write_npz
from embedkit.data.records.parquet import read_parquet, write_parquet
from embedkit.errors import InvalidInput, NotFound
from embedkit.types import Collection, Record

__all__ = ["SUFFIXES", "read_records", "write_records"]


class _Format(NamedTuple):
    write: Callable[[Path, Collection, Iterable[Record]], int]
    read: Callable[[Path], AbstractContextManager[tuple[Collection, Iterator[Record]]]]


_FORMATS = {
    ".jsonl": _Format(write_jsonl, read_jsonl),
    ".npz": _Format(write_npz, read_npz),
    ".parquet": _Format(write_parquet, read_parquet),
}
SUFFIXES = tuple(_FORMATS)
"""Of the formats."""


def write_records(path: Path, collection: Collection, records: Iterable[Record]) -> int:
    """Write records, with what the collection is, and return their number.

    The file appears when it is complete; one that was there is replaced then.

    Args:
        path: With one of ``SUFFIXES``.
        collection: What they come from.
        records: With vectors. An archive is put together in memory, the others are not.

    Raises:
        InvalidInput: If the suffix is another, or the folder cannot be written.
        ModuleNotFoundError: If it is Parquet and pyarrow is not there.
    """
    kind = _format(path)
    try:
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InvalidInput(f"expected a folder to write {path} into, got: {error}") from error
    os.close(handle)
    try:
        count = kind.write(Path(name), collection, records)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return count


def read_records(
    path: Path,
) -> AbstractContextManager[tuple[Collection, Iterator[Record]]]:
    """Open a file of records: what the collection was, and the records one by one.

    Raises:
        InvalidInput: If the suffix or the content is of another form.
        NotFound: If there is no such file.
        ModuleNotFoundError: If it is Parquet and pyarrow is not there.
    """
    kind = _format(path)
    if not path.is_file():
        raise NotFound(f"expected a file at {path}, got none")
    return kind.read(path)


def _format(path: Path) -> _Format:
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(SUFFIXES)
        raise InvalidInput(f"expected a file name that ends in {known}, got {path.name!r}")
    return found
