"""Connections to a collection's SQLite file, and why one could not be had."""

import errno
import os
import resource
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedkit.errors import StoreDamaged, Unavailable

__all__ = ["TIMEOUT_S", "Readers", "connect", "refusing_writes", "unread"]

TIMEOUT_S = 30
"""How long a statement waits for a lock of the file."""

# What opening a collection takes; two more for every further reader at a time.
_DESCRIPTORS = 5
# Connections that wait for their next reader.
_IDLE = 8


class Readers:
    """Connections of their own for any number of readers of one file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._is_closed = False

    @contextmanager
    def one(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one reader.

        Raises:
            StoreDamaged: If the file cannot be read, or has been closed here: by its name
                another one may be found, of a collection that was made since.
            Unavailable: If too many files are open.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._new()
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            failure = unread(self._path, error)
            connection.close()
            raise failure from error
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        self._clear(0 if self._is_closed else _IDLE)

    def close(self) -> None:
        """Close every idle connection, and each of the others when it comes back."""
        self._is_closed = True
        self._clear(0)

    def _clear(self, kept: int) -> None:
        """Close all idle connections but some."""
        with suppress(IndexError):  # another thread may close them too
            while len(self._idle) > kept:
                self._idle.popleft().close()

    def _new(self) -> sqlite3.Connection:
        self._check_open()
        try:
            connection = connect(self._path, "rw")
            try:
                connection.execute("PRAGMA query_only = ON")
                # Opens the log, which SQLite finds by its name too.
                connection.execute("PRAGMA schema_version").fetchone()
                self._check_open()
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise unread(self._path, error) from error
        return connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreDamaged(
                f"expected {self._path} to be open, got it closed; open the store again"
            )


def unread(path: Path, error: sqlite3.Error) -> Unavailable | StoreDamaged:
    """Why a file could not be read."""
    if reason := _no_descriptor(error):
        return Unavailable(f"{path} cannot be opened: {reason}")
    return StoreDamaged(f"expected to read {path}, got {error}")


@contextmanager
def refusing_writes() -> Iterator[None]:
    """Say that the disk refuses, in our words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = _no_descriptor(error) or f"{error}; reads go on"
        raise Unavailable(f"the store cannot write: {reason}") from error


def _no_descriptor(error: BaseException) -> str:
    """What to do if a file could not be opened because too many are; else empty."""
    is_told = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    is_likely = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN
    if not is_told and not (is_likely and _free_descriptors() < _DESCRIPTORS):
        return ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"expected {_DESCRIPTORS} more file descriptors, got all {soft} in use ({error}); "
        f"raise the limit (ulimit -n, up to {hard} for this user), drop collections, or have "
        "fewer connections"
    )


def _free_descriptors() -> int:
    """How many more files can be opened, as far as it matters."""
    handles: list[int] = []
    with suppress(OSError):
        for _ in range(_DESCRIPTORS):
            handles.append(os.open(os.devnull, os.O_RDONLY))
    for handle in handles:
        os.close(handle)
    return len(handles)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode, for whichever thread holds it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=TIMEOUT_S,
    )
