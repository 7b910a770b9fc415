"""The stress tool against a real server process: a little always, all when asked."""

import json
import subprocess
import sys

import pytest


def stress(repository, out, *arguments):
    command = [sys.executable, "tools/stress_serve.py", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def test_bad_messages_get_a_status_and_do_no_harm(repository, tmp_path):
    results = stress(repository, tmp_path / "out.json", "fuzz", "--scale", "0.03")
    assert results["fuzz"]["messages"] == 300
    assert sum(results["fuzz"]["codes"].values()) == 300
    assert results["fuzz"]["holds"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", ["fuzz", "overload", "soak", "idle"])
def test_the_server_holds(repository, tmp_path, scenario):
    results = stress(repository, tmp_path / "out.json", scenario, "--scale", "0.1")
    assert results[scenario]["holds"]
