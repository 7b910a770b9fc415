"""Connections are lent, kept for the next reader, and given back."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from embedkit.errors import StoreDamaged
from embedkit.retrieve.truth.connections import Readers
from embedkit.retrieve.truth.truth import FILE, Truth, create
from embedkit.types import Collection


def test_a_closed_file_is_not_opened_by_its_name_again(tmp_path: Path) -> None:
    create(tmp_path, Collection("c", 4))
    readers = Readers(tmp_path / FILE)
    with readers.one() as connection:
        readers.close()
        # Who has one already goes on with it.
        assert connection.execute("SELECT name FROM collection").fetchone() == ("c",)
    with pytest.raises(StoreDamaged, match="to be open"), readers.one():
        pass


def test_a_crowd_of_readers_gives_its_files_back(tmp_path: Path) -> None:
    """All but the database's own, one for each: SQLite keeps those, and takes them again."""
    create(tmp_path, Collection("c", 4))
    truth = Truth(tmp_path)
    held = []
    for _ in range(2):
        with ExitStack() as crowd:
            for _ in range(24):
                connection = crowd.enter_context(truth._readers.one())
                connection.execute("SELECT name FROM collection").fetchone()
            open_files = len(os.listdir("/dev/fd"))
        held.append(len(os.listdir("/dev/fd")))
        assert held[-1] <= open_files - 16
    assert held[0] == held[1]
    truth.close()
