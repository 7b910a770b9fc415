"""How much memory a process and how much disk a folder takes."""

from pathlib import Path
from typing import NamedTuple

__all__ = ["Memory", "disk_of", "memory_of"]


class Memory(NamedTuple):
    """Of one process.

    Attributes:
        resident_bytes: All pages in memory.
        anonymous_bytes: Those that belong to no file.
        peak_bytes: The most that were ever resident.
    """

    resident_bytes: int
    anonymous_bytes: int
    peak_bytes: int


def memory_of(pid: int | None = None) -> Memory:
    """Read a process's memory from ``/proc``; by default of this one."""
    text = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = [int(fields[name].split()[0]) << 10 for name in ("VmRSS", "RssAnon", "VmHWM")]
    return Memory(*found)


def disk_of(folder: Path) -> int:
    """Bytes on disk of everything in a folder; of a sparse file only what is there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)
