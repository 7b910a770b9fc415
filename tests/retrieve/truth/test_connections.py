"""Connections are lent, kept for the next reader, and given back."""

from pathlib import Path

import pytest

from embedkit.errors import StoreDamaged
from embedkit.retrieve.truth.connections import Readers
from embedkit.retrieve.truth.truth import FILE, create
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
