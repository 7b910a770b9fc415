"""A directory belongs to one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.errors import InvalidInput, Unavailable

__all__ = ["Owner", "usable"]


class Owner:
    """Holds a directory until released, or until the process ends in any way.

    Args:
        folder: Created if absent.

    Raises:
        InvalidInput: If it cannot be made or written to.
        Unavailable: If another process, or another store of this one, holds it; names its pid.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "owner.pid", flags, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise Unavailable(
                f"expected {folder} to be free, got one in use by process {pid}; stop that "
                "process or choose another data directory"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the directory."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Say that a folder of the data directory cannot be used, in our words."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"expected a folder that can be made, read and written, got {folder} "
            f"({error.strerror or error}); choose another data directory"
        ) from error
