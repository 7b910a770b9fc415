"""CSV manifests: one row per image file, with ``path`` and ``label``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from embedkit.data.dataset import Dataset
from embedkit.data.files import ImageFile, collect
from embedkit.data.folder import read_regular_file
from embedkit.data.labels import class_order
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput

__all__ = ["Row", "load_manifest", "read_rows", "select_rows"]

_PATH_COLUMNS = ("path", "file")
_SPLIT_COLUMNS = ("split", "group")


@dataclass(frozen=True)
class Row:
    """One line of a manifest.

    Attributes:
        path: Path of the file, relative to the manifest.
        label: Class name, or None without a label column.
        split: Value of the column ``split``, else of ``group``, else empty.
    """

    path: str
    label: str | None
    split: str


def load_manifest(path: Path, split: str | None = None, *, strict: bool = False) -> Dataset:
    """Read the files that a CSV names, relative to the CSV's folder.

    Args:
        path: The CSV, UTF-8 with a header: ``path`` (or ``file``), and optionally ``label``
            and ``split`` (or ``group``); other columns are ignored.
        split: Keep the rows with this value; by default ``train`` where a column ``split``
            has it, else all rows.
        strict: Whether one bad file is an error.

    Raises:
        InvalidInput: If a column is missing, a label is empty, or nothing is readable.
    """
    try:
        rows = read_rows(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected UTF-8 text in {path}, got: {error}") from error
    class_names = class_order(row.label for row in rows if row.label is not None)
    files = [
        ImageFile(row.path, row.label, partial(read_regular_file, path.parent / row.path))
        for row in select_rows(rows, split, str(path))
    ]
    return collect(path.stem, files, class_names=class_names, strict=strict)


def read_rows(text: str, source: str) -> list[Row]:
    """Parse a manifest.

    Raises:
        InvalidInput: If a column is missing, a path is empty or repeated, a label is empty, or
            there are no rows.
    """
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(reader.fieldnames or [])
        lines = list(reader)
    except csv.Error as error:
        raise InvalidInput(f"expected CSV in {source}, got: {error}") from error
    path_column = next((name for name in _PATH_COLUMNS if name in columns), None)
    if path_column is None:
        raise InvalidInput(
            f"expected a header with 'path' (and optionally 'label') in {source}, "
            f"got {','.join(columns)!r}"
        )
    split_column = next((name for name in _SPLIT_COLUMNS if name in columns), "")
    has_label = "label" in columns
    rows = [
        Row(
            line[path_column] or "",
            (line["label"] or "") if has_label else None,
            line.get(split_column) or "",
        )
        for line in lines
    ]
    _check_rows(rows, source)
    return rows


def _check_rows(rows: Sequence[Row], source: str) -> None:
    if not rows:
        raise InvalidInput(f"expected at least one row below the header of {source}, got none")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if not row.path or row.label == "" or row.path in seen or "\0" in row.path:
            what = "the path again" if row.path in seen else "an empty value"
            what = "a path with a NUL" if "\0" in row.path else what
            raise InvalidInput(
                f"expected a path of its own and a label in row {number} of {source}, "
                f"got {what}: {row.path!r}, {row.label!r}"
            )
        seen.add(row.path)


def select_rows(rows: Sequence[Row], split: str | None, source: str) -> list[Row]:
    """The rows of one split; without one those of ``train``, or all where no row is ``train``.

    Raises:
        InvalidInput: If no row has the split.
    """
    found = dict.fromkeys(row.split for row in rows if row.split)
    if split is None and "train" not in found:
        return list(rows)
    chosen = choose_split(split, found or {"(none)": None}, source)
    return [row for row in rows if row.split == chosen]
