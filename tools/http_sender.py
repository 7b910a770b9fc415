"""A cheap HTTP/1.1 sender: one thread, keep-alive sockets, the same request again and again.

It neither parses headers beyond the length nor builds requests, so a call costs this side about
as much as one over gRPC does (``bench_peers.py`` prints both).
"""

import selectors
import socket
import threading
from dataclasses import dataclass, field

from embedkit.bench.serving.load import Done, Reply

__all__ = ["HttpSender"]

_TIMEOUT_S = 60.0
_READ = 1 << 18
_OK = 200


@dataclass
class _Connection:
    """One socket, the call on it, and what has arrived of its answer."""

    socket: socket.socket
    done: Done | None = None
    data: bytearray = field(default_factory=bytearray)


class HttpSender:
    """``POST`` of one body; as many connections as there are calls at a time.

    Args:
        address: ``HOST:PORT``.
        path: Of the request.
        body: Of the request.
        headers: Beside host, length and kind of content.
    """

    def __init__(
        self,
        address: str,
        path: str,
        body: bytes,
        *,
        headers: tuple[str, ...] = ("Content-Type: application/octet-stream",),
    ) -> None:
        host, _, port = address.rpartition(":")
        self._place = host, int(port)
        lines = (f"POST {path} HTTP/1.1", f"Host: {address}", *headers)
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
        self._request = head.encode() + body
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._loop, name="http", daemon=True)
        self._thread.start()

    def send(self, done: Done) -> None:
        """Start one call and return once the request is written."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._open()
        connection.done = done
        try:
            connection.socket.sendall(self._request)
        except OSError:
            self._end(connection, Reply("UNAVAILABLE"), is_reusable=False)

    def close(self) -> None:
        """Close every connection."""
        self._wake.send(b"x")
        self._thread.join(_TIMEOUT_S)
        for connection in self._all:
            connection.socket.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _open(self) -> _Connection:
        made = socket.create_connection(self._place, timeout=_TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(made)
        with self._lock:
            self._all.append(connection)
        self._selector.register(made, selectors.EVENT_READ, connection)
        return connection

    def _loop(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                self._receive(key.data)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ)
        except OSError:
            data = b""
        if not data:
            self._end(connection, Reply("UNAVAILABLE"), is_reusable=False)
            return
        connection.data += data
        status = _parse(connection.data)
        if status is None:
            return
        connection.data.clear()
        self._end(connection, Reply("OK" if status == _OK else f"HTTP_{status}"))

    def _end(self, connection: _Connection, reply: Reply, *, is_reusable: bool = True) -> None:
        done, connection.done = connection.done, None
        if is_reusable:
            with self._lock:
                self._idle.append(connection)
        else:
            self._selector.unregister(connection.socket)
            connection.socket.close()
        if done is not None:
            done(reply)


def _parse(data: bytearray) -> int | None:
    """Status of a complete answer; None while some of it is missing.

    Raises:
        ValueError: If it does not say how long it is.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    mark = head.find(b"content-length:")
    if mark < 0:
        raise ValueError(f"expected a content-length, got {head!r}")
    length = int(head[mark + 15 :].split(b"\r\n", 1)[0])
    if len(data) < end + 4 + length:
        return None
    return int(head.split(b" ", 2)[1])
