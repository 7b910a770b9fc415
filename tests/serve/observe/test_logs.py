"""Structured logs and the access log."""

import io
import json
import logging

import pytest

from embedkit.serve.observe.logs import AccessLog, configure_logging, event
from embedkit.serve.observe.record import CallRecord

log = logging.getLogger("embedkit.test")

OK = CallRecord("EmbeddingService/Embed", "OK", 0.00123, 100, "r1", "", "")
BAD = CallRecord("EmbeddingService/Embed", "NOT_FOUND", 0.5, 7, "", "NOT_FOUND", "no such")


@pytest.fixture
def stream():
    root = logging.getLogger("embedkit")
    before = (root.handlers[:], root.level, root.propagate)
    yield io.StringIO()
    root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]


def test_json_is_one_object_per_line(stream):
    configure_logging("json", stream=stream)
    event(log, logging.INFO, "loaded", model="a b", seconds=0.5)
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        log.exception("failed %s", "badly")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["message"] == "loaded"
    assert (first["level"], first["model"], first["seconds"]) == ("info", "a b", 0.5)
    assert first["time"].endswith("Z")
    assert second["message"] == "failed badly"
    assert "ValueError: broken" in second["trace"]


def test_text_keeps_values_in_their_place(stream):
    configure_logging("text", stream=stream)
    event(log, logging.INFO, "loaded", model="a b", id='x" level=evil\n', n=3, empty="", ok="é")
    (line,) = stream.getvalue().splitlines()
    assert ' info loaded model="a b" id="x\\" level=evil\\n" n=3 empty="" ok=é' in line


def test_the_level_is_kept(stream):
    configure_logging("text", level="WARNING", stream=stream)
    event(log, logging.INFO, "quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("which", "codes"),
    [("all", ["OK", "NOT_FOUND"]), ("errors", ["NOT_FOUND"]), ("off", [])],
)
def test_the_access_log_writes_what_is_wanted(stream, which, codes):
    configure_logging("json", stream=stream)
    access = AccessLog(which)
    access.call(OK)
    access.call(BAD)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["code"] for line in lines] == codes
    if which == "all":
        assert lines[0]["id"] == "r1"
        assert lines[0]["ms"] == 1.23
        assert "reason" not in lines[0]
        assert lines[1]["details"] == "no such"
