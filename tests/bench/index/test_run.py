"""A whole run, in small: a real server process, a real bare index, real files."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit.bench.index.bare import BareRun
from embedkit.bench.index.figures import Load, Turn, best, point_figures
from embedkit.bench.index.memory import disk_of, memory_of
from embedkit.bench.serving.load import Slice
from embedkit.cli import cli
from embedkit.errors import InvalidInput

ANY = ["--server-cores", "any", "--client-cores", "any", "--rounds", "1", "--seconds", "0.1"]
SMALL = [*ANY, "--size", "500", "--dim", "8", "--queries", "64"]


def test_a_short_run_writes_json_and_a_plot(tmp_path):
    out, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    files = ["--out", str(out), "--plot", str(picture)]
    result = CliRunner().invoke(cli, ["bench", "index", *SMALL, "--kind", "flat", *files])
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads(out.read_text())
    assert report["schema"] == "embedkit.bench.index/1"
    assert report["versions"]["faiss-cpu"]
    (index,) = report["indexes"]
    assert (index["n"], index["dim"], index["kind"], index["k"]) == (500, 8, "flat", 10)
    assert [(p["batch"], p["in_flight"]) for p in index["points"]] == [(1, 1), (64, 4)]
    for point in index["points"]:
        assert point["recall"] == point["bare_recall"] == 1
        assert point["codes"].keys() == {"OK"}
        ratio = point["queries_per_s"]["median"] / point["bare_queries_per_s"]["median"]
        assert point["efficiency"]["median"] == pytest.approx(ratio, rel=1e-3)
    assert index["points"][0]["over_bare_ms"]["median"] > 0
    costs = index["costs"]
    assert costs["upserts_per_s"] > 0
    assert costs["disk_bytes_per_vector"] > 4 * 8
    assert costs["raw_bytes_per_vector"] == 32
    assert b"<svg" in picture.read_bytes()
    assert "efficiency" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "flatt"], "expected a kind of"),
        (["--load", "64"], "64x4"),
        (["--load", "128x1"], "at least 128 queries"),
        (["--plot", "a.txt"], r"\.png"),
        (["--server-cores", "100000"], "expected cores"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(arguments, message):
    result = CliRunner().invoke(cli, ["bench", "index", *SMALL, *arguments])
    assert isinstance(result.exception, InvalidInput)
    assert re.search(message, str(result.exception))


def test_figures_by_hand():
    served = Slice(2.0, 10.0, np.array([0.2, 0.2, 0.4]), {"OK": 3}, {}, 1.0, 0.0)
    turn = Turn(BareRun(900.0, 1000.0, 150.0), served, BareRun(1100.0, 1400.0, 170.0))
    point = point_figures("nprobe", 4, Load(64, 1), (0.9, 0.95), [turn])
    assert point["queries_per_s"]["median"] == 320
    assert point["bare_queries_per_s"]["median"] == 1000
    assert point["efficiency"]["median"] == pytest.approx(0.32)
    assert point["cpu_efficiency"]["median"] == pytest.approx(1200 / (1e6 / 640))
    assert point["over_bare_ms"]["median"] == pytest.approx(200 - 160)
    index = {"points": [point]}
    assert best(index, 64, 0.9) == 320
    assert best(index, 64, 0.93) is None
    assert best(index, 64, 0.93, bare=True) == 1000


def test_memory_and_disk_are_what_was_taken(tmp_path):
    before = memory_of()
    block = np.ones(200_000_000, np.uint8)  # so large that no freed memory is used again
    after = memory_of()
    assert after.anonymous_bytes - before.anonymous_bytes > 150_000_000
    assert after.peak_bytes >= after.resident_bytes > after.anonymous_bytes
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(block[:100_000].tobytes())
    assert 100_000 <= disk_of(tmp_path) < 200_000
