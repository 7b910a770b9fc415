"""The leaderboard: what counts as done, how rows are summed up, and one whole small run."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from embedkit.evaluate.context import Options
from tools import leaderboard
from tools.board import entries as table
from tools.board import record as records
from tools.board import work
from tools.board.entries import Entry, entries, find
from tools.board.page import render
from tools.board.record import Record, code_of, digest_of, read_all, wanted
from tools.board.summary import Row, pooled_sd, prediction, rows


def done(row, seed, **values):
    """A finished run with these metrics."""
    metrics = {name: {"value": value, "ci": None, "n": 10} for name, value in values.items()}
    return replace(wanted(find(row), seed, "sha256:0"), metrics=metrics)


def knn(row, *values):
    return [done(row, seed, **{"knn.top1": value}) for seed, value in enumerate(values)]


def bare(*values):
    """Runs with no more than a kNN accuracy each."""
    metrics = [{"knn.top1": {"value": value}} for value in values]
    return tuple(Record("", s, "", "", "", metrics=m) for s, m in enumerate(metrics))


def test_teachers_come_before_those_who_learn_from_them():
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)
    for entry in entries():
        assert all(names.index(teacher) < names.index(entry.name) for teacher in entry.teachers)


def test_seed_and_arguments_and_code_are_told_apart():
    entry = find("simclr")
    other = replace(entry, changes={"objective": {"temperature": 0.3}})
    assert digest_of(entry, 0) != digest_of(entry, 1)
    assert digest_of(entry, 0) != digest_of(other, 0)
    assert code_of(entry) != code_of(find("dcl"))


def test_words_in_the_code_change_no_digest():
    with_words = '"""A."""\n# Why.\ndef f():\n    """B."""\n    return 1\n'
    assert records._bare(with_words) == records._bare("def f():\n    return 1\n")
    assert records._bare(with_words) != records._bare("def f():\n    return 2\n")


def test_a_damaged_record_is_not_there(tmp_path):
    done("simclr", 0).write(tmp_path)
    (tmp_path / "dcl.0.json").write_text('{"row": "dcl", ')
    assert [record.row for record in read_all(tmp_path)] == ["simclr"]


def test_runs_of_another_recipe_or_code_do_not_count():
    runs = knn("simclr", 0.8, 0.7, 0.6)
    runs[1] = replace(runs[1], recipe="sha256:1")
    runs[2] = replace(runs[2], code="sha256:1")
    assert rows(runs)["simclr"].values("knn") == [0.8]


def test_spread_is_pooled_over_rows():
    table = rows(
        [*knn("simclr", 0.80, 0.82, 0.84), *knn("dcl", 0.70, 0.71), *knn("random", 0, 1)]
    )
    sd, freedom = pooled_sd(table, "knn")
    squares = np.var([0.80, 0.82, 0.84], ddof=1) * 2 + np.var([0.70, 0.71], ddof=1)
    assert freedom == 3
    assert sd == pytest.approx(np.sqrt(squares / 3))


def test_prediction_holds_a_further_seed_as_often_as_it_says(rng):
    held, names = 0, [e.name for e in entries() if e.kind == "images"][:8]
    found = {name: find(name) for name in names}
    for _ in range(400):
        draws = rng.normal(0.8, 0.01, (8, 4))
        chosen = zip(names, draws, strict=True)
        made = {n: Row(found[n], bare(*row[:3])) for n, row in chosen}
        _, low, high = prediction(made, names[0], "knn")
        held += low <= draws[0, 3] <= high
    # Its spread is the larger of its own and the pooled one, so it holds at least 95 %.
    assert stats.binomtest(held, 400, 0.95, "less").pvalue > 1e-3
    assert held < 400


def test_the_page_says_who_beats_the_untrained_network():
    runs = [*knn("random", 0.70, 0.71), *knn("simclr", 0.80, 0.81), *knn("byol", 0.73, 0.74)]
    page = render(rows([*runs, *knn("raw_pixels", 0.79)]))
    assert "`byol`: +3.0 points" in page
    assert "`simclr`: +" not in page
    assert "| `simclr` | 0.805 ± 0.007 | 2 |" in page
    assert "## Not run yet" in page


def test_a_row_without_a_run_has_no_mean():
    row = Row(find("simclr"))
    assert row.mean("knn") is None
    assert row.sd("knn") is None


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A leaderboard of two rows on a handful of grey images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (120, 12, 12), np.uint8)
    pixels[:60, :6] //= 4
    labels = np.repeat([0, 1], 60)
    order = rng.permutation(120)
    pixels, labels = pixels[order], labels[order]
    split = {"x_train": pixels[:80], "y_train": labels[:80]}
    split |= {"x_test": pixels[80:], "y_test": labels[80:]}
    np.savez(tmp_path / "fashion_mnist.npz", **split)
    for name in work.NOVEL:
        np.savez(tmp_path / f"{name}.npz", x_test=rng.integers(0, 256, (30, 12, 12), np.uint8))
    common = {
        **table._COMMON,
        "data": {"limit": 80},
        "encoder": {"name": "resnet", "blocks": [1], "width": 4},
        "schedule": {"epochs": 1, "batch_size": 40},
        "projection": {"hidden": 8, "dim": 8},
    }
    monkeypatch.setattr(table, "_COMMON", common)
    monkeypatch.setattr(leaderboard, "entries", lambda: (Entry("simclr", "simclr", "images"),))
    monkeypatch.setattr(work, "SUITE", ("knn",))
    monkeypatch.setattr(work, "OPTIONS", Options())
    where = [f"--{name}={tmp_path / name}" for name in ("work", "results")]
    return [f"--data={tmp_path}", f"--page={tmp_path / 'page.md'}", "--seeds=0,1", *where]


def test_runs_are_done_once_and_go_on_where_they_stopped(small, tmp_path, capsys):
    assert leaderboard.main([*small, "--one-more"]) == 0
    first = json.loads((tmp_path / "results" / "simclr.0.json").read_text())
    assert first["status"] == "ok", first["problem"]
    assert first["transport"] == "grpc"
    assert 0 <= first["metrics"]["knn.top1"]["value"] <= 1
    assert leaderboard.main(small) == 0
    assert [r.seed for r in read_all(tmp_path / "results")] == [0, 1]
    assert json.loads((tmp_path / "results" / "simclr.0.json").read_text()) == first
    assert leaderboard.main(small) == leaderboard.NOTHING_LEFT


def test_an_interrupted_run_leaves_no_record_and_goes_on(small, tmp_path, monkeypatch):
    longer = {**table._COMMON, "schedule": {"epochs": 500, "batch_size": 40}}
    monkeypatch.setattr(table, "_COMMON", longer)
    checkpoint = tmp_path / "work" / "simclr.0" / "run" / "checkpoint.pt"

    def interrupt():
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(SystemExit, match="simclr, seed 0: interrupted at step"):
        leaderboard.main([*small, "--one-more"])
    thread.join(timeout=10)
    assert read_all(tmp_path / "results") == []
    assert checkpoint.exists()


def test_two_at_a_time_are_refused(small, tmp_path):
    (tmp_path / "work").mkdir()
    with leaderboard._alone(tmp_path / "work"), pytest.raises(SystemExit, match="this process"):
        leaderboard.main(small)


def test_a_failed_run_is_recorded_and_not_tried_for_ever(small, tmp_path, capsys):
    (tmp_path / "kmnist_test.npz").rename(tmp_path / "elsewhere.npz")
    with pytest.raises(Exception, match="kmnist_test"):
        leaderboard.main(small)
    failed = Record("simclr", 0, "r", "c", "p", status="failed", problem="it broke")
    plan = wanted(Entry("simclr", "simclr", "images"), 0, "p")
    replace(failed, recipe=plan.recipe, code=plan.code).write(tmp_path / "results")
    assert leaderboard._is_done(plan, tmp_path / "results", retry=False)
    assert not leaderboard._is_done(plan, tmp_path / "results", retry=True)
