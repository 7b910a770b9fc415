"""The lines of a run are on the disk before the checkpoint that counts them, and whole."""

import os

import pytest

from embedkit.errors import BundleDamaged
from embedkit.train.loop import train
from embedkit.train.run.metrics import cut_metrics, keep_metrics, read_metrics
from tests.train.runs import metrics, train_until


def test_what_is_kept_is_its_length_and_the_rest_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert keep_metrics(path) == 0
    cut_metrics(path, 0)
    assert not path.exists()
    path.write_bytes(b'{"step": 1}\n')
    length = keep_metrics(path)
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    cut_metrics(path, length)
    assert read_metrics(path) == [{"step": 1}]


def test_a_last_line_that_is_not_whole_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    cut_metrics(path, 1000)
    assert path.read_bytes() == b'{"step": 1}\n'


@pytest.mark.parametrize("line", [b'{"step"', b"3", b"\x00\x00", b"\xff"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(BundleDamaged, match=r"line 2 of .*metrics\.jsonl.*delete this line"):
        read_metrics(path)


def test_the_lines_are_on_the_disk_before_the_checkpoint(small, tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def note(handle):
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    train(small(), tmp_path / "run")
    # A file that is replaced keeps the number of the one that was written for it.
    lines, checkpoint = (
        (tmp_path / "run" / name).stat().st_ino for name in ("metrics.jsonl", "checkpoint.pt")
    )
    assert lines in synced[: synced.index(checkpoint)]


def test_a_run_whose_last_line_was_torn_goes_on(small, tmp_path):
    train_until(small(), tmp_path / "run", 4)
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-40])
    train(small(), tmp_path / "run", resume=True)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 4, 5, 6, 7, 8]


def test_a_finished_run_without_its_metrics_says_so(small, tmp_path):
    train(small(), tmp_path / "run")
    for name in ("run.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(BundleDamaged, match=r"metrics of the run.*delete .*checkpoint\.pt"):
        train(small(), tmp_path / "run", resume=True)
