"""A whole run, in small: real server process, real bare session, real table."""

import json
import subprocess
import sys

import pytest

from embedkit.bench.serving.measure import Case, Pace
from embedkit.bench.serving.raw import raw_session
from embedkit.bench.serving.run import Plan, run
from embedkit.bench.serving.server import own_server, process_clock
from embedkit.errors import InvalidInput, Unavailable

SHORT = Pace(seconds=0.2, rounds=2, sizes=(1, 8))


def test_every_loop_of_a_served_bundle(light):
    cases = (Case("unary", 1, 1), Case("multi-image", 8, 2), Case("unary", load=0.5))
    told = []
    figures = run(Plan(cases, light, pace=SHORT), lambda *turn: told.append(turn[:2]))
    assert told == [(number, case) for number in range(2) for case in cases]
    assert [case["name"] for case in figures["cases"]] == [
        "unary x1",
        "multi-image x2",
        "unary at 50%",
    ]
    for case in figures["cases"]:
        assert case["codes"].keys() == {"OK"}
        assert len(case["efficiency"]["rounds"]) == 2
        assert case["efficiency"]["median"] > 0
        assert case["server_cpu_us_per_call"]["median"] > 0
        assert sum(case["batches"].values()) > 0
    assert figures["raw"]["batch"] in (1, 8)
    assert 0 < figures["ready_s"] < 60
    json.dumps(figures, allow_nan=False)


def test_the_bare_session_answers_with_a_run_per_size(light):
    with raw_session(light, cores=(), threads=1) as session:
        runs = session.measure((1, 4), 0.1)
        session._process.kill()
        with pytest.raises(Unavailable, match="bare session"):
            session.measure((1,), 0.1)
    assert [one.size for one in runs] == [1, 4]
    assert all(one.images_per_s > 0 and one.cpu_us > 0 and one.p50_ms > 0 for one in runs)


def test_a_running_server_with_another_graph_is_refused(light, tmp_path):
    from embedkit.bench.models import write_network

    other = write_network(tmp_path, "heavy")
    with own_server(light, cores=(), threads=1) as target:
        cases = (Case("unary", 1, 1),)
        with pytest.raises(InvalidInput, match="another digest"):
            run(Plan(cases, other, server=target.address, model="light", pace=SHORT))
        with pytest.raises(InvalidInput, match="expected a model of"):
            run(Plan(cases, server=target.address, model="nobody", pace=SHORT))
        figures = run(Plan(cases, server=target.address, metrics=target.metrics, pace=SHORT))
        # Only whole hundredths of a second are told here, but they are told.
        assert figures["cases"][0]["server_cpu_us_per_call"]["median"] is not None
        assert "raw" not in figures


def test_a_server_that_does_not_start_is_unavailable(light):
    with (
        pytest.raises(Unavailable, match="exit code 2"),
        own_server(light, cores=(), threads=1, arguments=["--no-such-option"]),
    ):
        pass


def test_a_plan_needs_something_to_measure(light):
    with pytest.raises(InvalidInput, match="neither"):
        Plan((Case("unary", 1, 1),))
    with pytest.raises(InvalidInput, match="at least one"):
        Plan((), light)
    with pytest.raises(InvalidInput, match="closed loop"):
        run(Plan((Case("unary", load=0.5),), light, pace=SHORT))


def test_the_clock_counts_a_process_and_its_children():
    busy = "import time\nwhile time.process_time() < 0.3: pass\n"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {busy!r} + 'input()'])\n"
        f"{busy}print('done', flush=True)\nchild.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        clock = process_clock(process.pid)
        while clock() < 0.59:
            pass
        assert clock() < 3
        process.communicate(b"\n", timeout=20)
        assert clock() == 0
