"""Checkpoints are whole or absent, and never run code."""

import os
import pickle

import pytest
import torch

from embedkit.errors import BundleDamaged
from embedkit.train.run.checkpoint import read_checkpoint, write_checkpoint, write_file


def test_round_trip_is_exact(tmp_path):
    weights = {"a": torch.randn(3, 2), "b": torch.tensor(7)}
    values: dict[str, object] = {
        "weights": weights,
        "step": 12,
        "rate": 0.1,
        "texts": ["x"],
        "none": None,
    }
    write_checkpoint(tmp_path / "c.pt", values)
    read = read_checkpoint(tmp_path / "c.pt")
    restored = read["weights"]
    assert isinstance(restored, dict)
    assert all(torch.equal(restored[name], value) for name, value in weights.items())
    assert {k: read[k] for k in ("step", "rate", "texts", "none")} == {
        k: values[k] for k in ("step", "rate", "texts", "none")
    }


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"old")

    def crash(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"new, and longer")
    assert path.read_bytes() == b"old"


def test_a_torn_staging_file_is_replaced(tmp_path):
    (tmp_path / ".file.writing").write_bytes(b"torn by a crash, and longer than the new one")
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_damaged_files_are_reported(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match=r"checkpoint\.pt.*delete it"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_reported(tmp_path):
    path = tmp_path / "c.pt"
    write_checkpoint(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(BundleDamaged):
        read_checkpoint(path)


def test_a_pickle_with_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(BundleDamaged):
        read_checkpoint(path)
    torch.save({"a": Payload()}, path)
    with pytest.raises(BundleDamaged):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_something_else_than_a_table_is_refused(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([1, 2], path)
    with pytest.raises(BundleDamaged, match="got list"):
        read_checkpoint(path)
