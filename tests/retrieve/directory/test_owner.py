"""One process per data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.errors import InvalidInput, Unavailable
from embedkit.retrieve.directory.owner import Owner

HOLD = """
import sys, time
from pathlib import Path
from embedkit.retrieve.directory.owner import Owner
owner = Owner(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_owner_is_told_the_first_ones_pid(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match=f"process {process.pid}"):
            Owner(tmp_path / "data")
        process.kill()
        process.wait()
        Owner(tmp_path / "data").release()


def test_the_same_process_cannot_own_twice(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    with pytest.raises(Unavailable, match=str(os.getpid())):
        Owner(tmp_path)
    owner.release()
    owner.release()
    again = Owner(tmp_path)
    assert (tmp_path / "owner.pid").read_text() == f"{os.getpid()}\n"
    again.release()


@pytest.mark.parametrize("name", ["file", "file/x", "pid is a folder"])
def test_what_cannot_be_a_data_directory_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "pid is a folder" / "owner.pid").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=f"got .*/{name} \\(.*choose another data directory"):
        Owner(tmp_path / name)
