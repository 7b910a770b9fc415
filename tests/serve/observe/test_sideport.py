"""The HTTP side port over a real socket."""

import urllib.error
import urllib.request

import pytest

from embedkit.errors import InvalidInput, Unavailable
from embedkit.serve.observe.sideport import SidePort


@pytest.fixture
def ready():
    return [True]


@pytest.fixture
def port(ready):
    port = SidePort("127.0.0.1:0", metrics=lambda: b"a 1\n", is_ready=lambda: ready[0])
    yield port
    port.stop()


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://{port.address}{path}", timeout=10) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_metrics_have_the_prometheus_content_type(port):
    status, kind, body = get(port, "/metrics?name=a")
    assert (status, body) == (200, b"a 1\n")
    assert kind.startswith("text/plain; version=0.0.4")


def test_probes(port, ready):
    assert get(port, "/livez")[0] == 200
    assert get(port, "/readyz")[::2] == (200, b"ready\n")
    ready[0] = False
    assert get(port, "/readyz")[::2] == (503, b"not ready\n")
    assert get(port, "/livez")[0] == 200


def test_other_paths_say_what_there_is(port):
    status, _, body = get(port, "/")
    assert status == 404
    assert b"/metrics" in body


def test_a_taken_port_is_unavailable(port):
    with pytest.raises(Unavailable, match="expected to bind"):
        SidePort(port.address, metrics=bytes, is_ready=bool)


@pytest.mark.parametrize("bind", ["9090", "localhost", "localhost:http", ":", ""])
def test_what_is_no_address_is_refused(bind):
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        SidePort(bind, metrics=bytes, is_ready=bool)
