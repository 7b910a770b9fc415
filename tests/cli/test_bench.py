"""``embedkit bench serve`` as a command: files it writes, options it refuses."""

import json
import os
import re

import pytest
from click.testing import CliRunner

from embedkit.cli import cli
from embedkit.errors import InvalidInput

ANY = ["--server-cores", "any", "--client-cores", "any"]
SHORT = [*ANY, "--seconds", "0.2", "--rounds", "1", "--mode", "unary"]


def test_a_short_run_writes_json_and_a_plot(tmp_path):
    out, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["--model", "light", "--concurrency", "1,4", "--load", "0.5", "--rate", "20"]
    files = ["--out", str(out), "--plot", str(picture)]
    result = CliRunner().invoke(
        cli, ["bench", "serve", *SHORT, *arguments, *files, "--", "--max-batch", "16"]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads(out.read_text())
    assert report["schema"] == "embedkit.bench.serve/1"
    assert report["code"].startswith("sha256:")
    assert report["versions"]["grpcio"]
    (model,) = report["models"]
    names = [case["name"] for case in model["cases"]]
    assert names == ["unary x1", "unary x4", "unary at 50%", "unary 20/s"]
    assert model["server_arguments"] == ["--max-batch", "16"]
    assert all(name in result.output for name in names)
    assert "efficiency" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "1,x"], "positive numbers"),
        (["--load", "-1"], "positive numbers"),
        (["--plot", "a.txt"], r"\.png"),
        (["--model", "huge"], "huge"),
        (["--server-cores", "100000"], "expected cores"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(arguments, message):
    result = CliRunner().invoke(cli, ["bench", "serve", *SHORT, *arguments])
    assert isinstance(result.exception, InvalidInput)
    assert re.search(message, str(result.exception))
    assert os.sched_getaffinity(0)
