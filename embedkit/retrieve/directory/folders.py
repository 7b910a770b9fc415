"""The folders of collections in a data directory: each is there whole, or not at all."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from embedkit.errors import AlreadyExists, StoreDamaged
from embedkit.retrieve.collection import OpenCollection
from embedkit.retrieve.directory.owner import usable
from embedkit.retrieve.truth.connections import refusing_writes
from embedkit.retrieve.truth.truth import FILE, create
from embedkit.types import Collection

__all__ = ["Folders"]

_LOG = logging.getLogger(__name__)


class Folders:
    """Makes, opens and removes the folders of collections.

    What lies beside them and has no truth is left alone, with a warning if it is a folder.

    Args:
        root: The data directory, which this process owns.

    Raises:
        InvalidInput: If it cannot be made, read and written.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "collections"
        with usable(self._folder):
            self._folder.mkdir(exist_ok=True)

    def opened(self) -> Iterator[OpenCollection]:
        """Open every collection, by name.

        Raises:
            StoreDamaged: If one cannot be read, or has another name than its folder.
        """
        with usable(self._folder):
            entries = sorted(self._folder.iterdir())
        for entry in entries:
            if entry.name.startswith("."):  # made or dropped when the process ended
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.is_file() and _has_truth(entry):
                yield _collection_in(entry)

    def made(self, collection: Collection) -> OpenCollection:
        """A new collection on disk.

        Raises:
            AlreadyExists: If there is something of its name that is not served.
            Unavailable: If the disk refuses; then there is nothing of it.
        """
        home = self._folder / collection.name
        if os.path.lexists(home):
            raise AlreadyExists(
                f"expected a new collection name, got {collection.name!r}: the data "
                f"directory has collections/{collection.name}, which is not served; move "
                "it away or choose another name"
            )
        with refusing_writes():
            staging = Path(tempfile.mkdtemp(prefix=".making-", dir=self._folder))
            try:
                create(staging, collection)
                _synchronise(staging)
                staging.rename(home)
                _synchronise(self._folder)
                return OpenCollection(home)
            except BaseException:
                # What cannot be removed now has a name that the next start removes.
                with suppress(OSError):
                    home.rename(staging)
                shutil.rmtree(staging, ignore_errors=True)
                raise

    def put_away(self, name: str) -> Path:
        """Take a collection's folder out of the way for good.

        Returns:
            Where it is until somebody removes it, at the latest the next start.

        Raises:
            Unavailable: If the disk refuses.
        """
        with refusing_writes():
            dropped = Path(tempfile.mkdtemp(prefix=".dropped-", dir=self._folder))
            (self._folder / name).rename(dropped / name)
            _synchronise(self._folder)
        return dropped


def _has_truth(folder: Path) -> bool:
    """Whether a folder is a collection; a warning says which one is not.

    Raises:
        StoreDamaged: If that cannot be found out.
    """
    try:
        (folder / FILE).lstat()
    except (FileNotFoundError, NotADirectoryError):
        _LOG.warning(
            "%s is not served: expected %s in it, got none. It is a stray folder, or a "
            "collection that has lost that file: put the file back and start again, or move "
            "the folder away",
            folder,
            FILE,
        )
        return False
    except OSError as error:
        raise _damaged(folder, f"expected to read {folder}, got {error}") from error
    return True


def _collection_in(folder: Path) -> OpenCollection:
    try:
        opened = OpenCollection(folder)
    except StoreDamaged as error:
        raise _damaged(folder, str(error)) from error
    name = opened.described.name
    if name != folder.name:
        opened.close()
        raise StoreDamaged(
            f"expected the collection {folder.name!r} in {folder}, got {name!r}: a collection "
            f"has one name; rename the folder to {name!r}, or move it away to start without it"
        )
    return opened


def _damaged(folder: Path, what: str) -> StoreDamaged:
    """The error of a collection that stops the start, and the way out."""
    return StoreDamaged(
        f"{what}; restore {folder} from a copy, or move it away to start without it"
    )


def _synchronise(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
