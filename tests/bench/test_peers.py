"""The HTTP sender at a real server, and the launcher at the peer that needs no packages."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from embedkit.bench.serving.load import run_closed
from embedkit.bench.serving.measure import Case
from embedkit.errors import Unavailable
from tools.bench_peers import main
from tools.http_sender import HttpSender
from tools.peer_process import PEERS, Peer, install, serve

MINIMAL = PEERS[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Content-Type"], body))
        self.server.peers.add(self.client_address)
        if self.path == "/hang-up":
            self.close_connection = True
            return
        self.send_response(200 if self.path == "/good" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), 40_000):  # in pieces, as a network would
            self.wfile.write(body[start : start + 40_000])
            self.wfile.flush()

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.peers, server.daemon_threads = [], set(), True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server, path, body=b"x"):
    sender = HttpSender(f"127.0.0.1:{server.server_port}", path, body)
    found, arrived = [], threading.Event()

    def done(reply):
        found.append(reply.code)
        arrived.set()

    sender.send(done)
    assert arrived.wait(10)
    sender.close()
    return found[0]


def test_answers_are_told_by_their_status(server):
    assert ask(server, "/good", b"a" * 200_000) == "OK"
    assert server.seen == [("/good", "application/octet-stream", b"a" * 200_000)]
    assert ask(server, "/bad") == "HTTP_503"
    assert ask(server, "/hang-up") == "UNAVAILABLE"


def test_a_closed_loop_uses_a_connection_per_call_in_flight(server):
    sender = HttpSender(f"127.0.0.1:{server.server_port}", "/good", b"abc")
    seen = run_closed(sender, in_flight=4, seconds=0.3, warm_s=0.1)
    sender.close()
    assert seen.calls > 20
    assert seen.codes.keys() == {"OK"}
    assert len(server.peers) == 4


def test_the_minimal_server_gives_golden_embeddings_and_takes_load(light):
    case = Case("unary", 1, 8)
    with serve(MINIMAL, sys.executable, light, case) as (target, connect):
        sender = connect(case)
        seen = run_closed(
            sender, in_flight=8, seconds=0.3, warm_s=0.1, server_clock=target.clock
        )
        sender.close()
    assert seen.codes.keys() == {"OK"}
    assert seen.server_cpu_s > 0


@pytest.mark.slow
def test_what_cannot_be_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    skipped = {}
    assert (
        install([Peer("none", "none.py", ("no-such-package-here",))], tmp_path, skipped) == {}
    )
    assert "not installed" in skipped["none"]


def test_what_does_not_start_is_told(light):
    with (
        pytest.raises(Unavailable, match="No such file"),
        serve(Peer("gone", "gone.py"), sys.executable, light, Case("unary", 1, 1)),
    ):
        pass


@pytest.mark.peer
@pytest.mark.slow
def test_the_table_has_every_peer_that_could_be_installed(tmp_path, monkeypatch, capsys):
    arguments = ["serve", "--seconds", "0.3", "--rounds", "1", "--model", "light"]
    monkeypatch.setattr(sys, "argv", ["bench_peers", *arguments, "--peer", "mosec"])
    main()
    said = capsys.readouterr().out
    assert "| load | embedkit | mosec |" in said or "left out: mosec" in said
