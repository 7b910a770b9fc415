"""The lines of ``metrics.jsonl``: kept in step with the checkpoint, and read back."""

import json
import os
from pathlib import Path
from typing import Any, TypeAlias

from embedkit.errors import BundleDamaged

__all__ = ["Line", "cut_metrics", "keep_metrics", "read_metrics"]

Line: TypeAlias = dict[str, Any]
"""One line: numbers, and a table of the loss's parts."""


def keep_metrics(path: Path) -> int:
    """Bring the lines so far to the disk; return their length in bytes, 0 without a file."""
    if not path.exists():
        return 0
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        return os.fstat(handle.fileno()).st_size


def cut_metrics(path: Path, length: int) -> None:
    """Cut off what lies beyond a length in bytes, and a last line that is not whole."""
    if not path.exists():
        return
    kept = path.read_bytes()[:length]
    os.truncate(path, kept.rfind(b"\n") + 1)


def read_metrics(path: Path) -> list[Line]:
    """All lines; none without a file.

    Raises:
        BundleDamaged: If a line is not what was written.
    """
    lines: list[Line] = []
    text = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise BundleDamaged(
                f"expected a JSON object in line {number} of {path}, got {error}; delete this "
                "line to go on"
            ) from error
    return lines
