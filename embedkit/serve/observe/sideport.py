"""The HTTP side port: ``/metrics`` for Prometheus, ``/livez`` and ``/readyz`` for probes."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from embedkit.errors import InvalidInput, Unavailable

__all__ = ["SidePort"]

_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class SidePort:
    """A small HTTP server on its own thread.

    Args:
        bind: ``HOST:PORT``; port 0 takes a free one.
        metrics: Gives the text of ``/metrics``.
        is_ready: Decides ``/readyz``.

    Raises:
        InvalidInput: If ``bind`` is no address.
        Unavailable: If it cannot be bound.
    """

    def __init__(
        self, bind: str, *, metrics: Callable[[], bytes], is_ready: Callable[[], bool]
    ) -> None:
        def answer(path: str) -> tuple[int, str, bytes]:
            if path == "/metrics":
                return 200, _PROMETHEUS, metrics()
            if path == "/livez":
                return 200, _TEXT, b"alive\n"
            if path == "/readyz":
                return (200, _TEXT, b"ready\n") if is_ready() else (503, _TEXT, b"not ready\n")
            return 404, _TEXT, b"expected /metrics, /livez or /readyz\n"

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                status, kind, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing; a scrape every few seconds is not news."""

        host, _, port = bind.rpartition(":")
        if not host or not port.isdigit():
            raise InvalidInput(f"expected HOST:PORT for the metrics, got {bind!r}")
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        except (OSError, OverflowError) as error:
            raise Unavailable(f"expected to bind {bind} for metrics, got: {error}") from error
        self.address = f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="sideport",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and end the thread."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
