"""Writing is whole or nothing, and versions are never written twice."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.bundle import (
    Bundle,
    Manifest,
    derive_bundle,
    latest_bundles,
    write_bundle,
    writing,
)
from embedkit.errors import AlreadyExists, InvalidInput, NotFound

# Run in a process of its own: it kills itself before the file number ``after`` is written.
WRITE_AND_DIE = """
import os, pickle, signal, sys
from embedkit.bundle import write_bundle, writing
models, manifest, files, after = pickle.load(sys.stdin.buffer)
original, written = writing._write_synced, []
def dying(path, data):
    if len(written) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, data)
    written.append(path)
writing._write_synced = dying
write_bundle(models, manifest, files)
"""


@pytest.mark.parametrize("after", range(7))
def test_a_kill_between_two_files_leaves_no_version(
    tmp_path: Path, plain_manifest: Manifest, content: dict[str, bytes], after: int
) -> None:
    given = pickle.dumps((tmp_path, plain_manifest, content, after))
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE], input=given, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "tiny").iterdir())) == 1, "expected the staging folder alone"
    assert latest_bundles(tmp_path) == {}
    # The leftover neither blocks the version nor is taken for one.
    again = write_bundle(tmp_path, plain_manifest, content)
    assert latest_bundles(tmp_path) == {"tiny": again.path}
    again.verify()


def test_an_error_while_writing_leaves_nothing(
    tmp_path: Path, plain_manifest: Manifest, content: dict[str, bytes]
) -> None:
    # A file and a folder of the same name cannot both be written.
    with pytest.raises(OSError, match="heads"):
        write_bundle(tmp_path, plain_manifest, {"heads": b"", **content})
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_version_is_never_written_twice(write, content) -> None:
    first = write(1)
    with pytest.raises(AlreadyExists, match="--version"):
        write(1, {"model.onnx": b"other"})
    assert Bundle(first.path).graph() == content["model.onnx"]


def test_of_two_writers_of_one_version_the_first_to_finish_wins(
    tmp_path: Path, plain_manifest: Manifest, content: dict[str, bytes], monkeypatch
) -> None:
    original = writing._move_into_place

    def overtaken(staging: Path, target: Path, force: bool) -> None:
        monkeypatch.setattr(writing, "_move_into_place", original)
        write_bundle(tmp_path, plain_manifest, content)
        original(staging, target, force)

    monkeypatch.setattr(writing, "_move_into_place", overtaken)
    with pytest.raises(AlreadyExists):
        write_bundle(tmp_path, plain_manifest, {"model.onnx": b"late"})
    folder = tmp_path / "tiny"
    assert [p.name for p in folder.iterdir()] == ["1"]
    assert Bundle(folder / "1").graph() == content["model.onnx"]


def test_force_replaces_and_leaves_nothing_behind(
    tmp_path: Path, plain_manifest: Manifest, content: dict[str, bytes]
) -> None:
    write_bundle(tmp_path, plain_manifest, content)
    forced = write_bundle(tmp_path, plain_manifest, {"model.onnx": b"new"}, force=True)
    assert forced.graph() == b"new"
    assert [p.name for p in (tmp_path / "tiny").iterdir()] == ["1"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "manifest.json", "heads/../x", ".x", ""])
def test_a_file_name_that_is_not_plain_is_refused(
    tmp_path: Path, plain_manifest: Manifest, name: str
) -> None:
    with pytest.raises(InvalidInput, match="plain file names"):
        write_bundle(tmp_path, plain_manifest, {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_derive_adds_a_file_in_the_next_version_and_keeps_the_digest(write, content) -> None:
    first, third = write(1), write(3)
    derived = derive_bundle(first, {"heads/more.npz": content["heads/default.npz"]})
    assert derived.manifest.version == 4
    assert derived.model_digest() == first.model_digest() == third.model_digest()
    assert derived.names("heads") == ("default", "more")
    assert first.names("heads") == ("default",)
    Bundle(first.path)


def test_derive_refuses_another_graph_and_a_damaged_original(write) -> None:
    first = write(1)
    with pytest.raises(InvalidInput, match="export a new model"):
        derive_bundle(first, {"model.onnx": b"other"})
    with pytest.raises(NotFound):
        Bundle(first.path.parent / "2")


def test_files_and_folders_are_readable_by_a_server_of_another_user(bundle: Bundle) -> None:
    assert bundle.path.stat().st_mode & 0o777 == 0o755
