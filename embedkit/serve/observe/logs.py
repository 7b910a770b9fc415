"""Structured logs: one JSON object, or one line of key=value, per event; and the access log."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal, TextIO

from embedkit.serve.observe.record import CallRecord

__all__ = ["AccessLog", "configure_logging", "event"]

access = logging.getLogger("embedkit.access")


def event(log: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log a message with fields that stay fields."""
    log.log(level, message, extra={"fields": fields})


def configure_logging(
    style: Literal["json", "text"] = "text",
    *,
    level: str = "INFO",
    stream: TextIO | None = None,
) -> None:
    """Send the package's log to a stream, by default standard error.

    Args:
        style: ``json`` for one object per line, ``text`` for ``time level message key=value``.
        level: Least level shown.
        stream: Where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Structured(style))
    root = logging.getLogger("embedkit")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


class AccessLog:
    """Writes a line for finished calls.

    Args:
        which: ``all``, only ``errors``, or ``off``.
    """

    def __init__(self, which: Literal["all", "errors", "off"]) -> None:
        self._which = which

    def call(self, record: CallRecord) -> None:
        """Write the line of a call, if it is one of those wanted."""
        if self._which == "off" or (self._which == "errors" and record.code == "OK"):
            return
        fields: dict[str, object] = {
            "rpc": record.rpc,
            "code": record.code,
            "ms": round(record.seconds * 1e3, 3),
            "bytes": record.request_bytes,
        }
        optional = {
            "id": record.request_id,
            "caller": record.caller,
            "reason": record.reason,
            "details": record.details,
        }
        fields.update((key, value) for key, value in optional.items() if value)
        event(access, logging.INFO, "call", **fields)


class _Structured(logging.Formatter):
    def __init__(self, style: Literal["json", "text"]) -> None:
        super().__init__()
        self._is_json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        moment = time.gmtime(record.created)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{int(record.msecs):03d}Z"
        fields: Mapping[str, object] = getattr(record, "fields", {})
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        level, message = record.levelname.lower(), record.getMessage()
        if self._is_json:
            head = {"time": stamp, "level": level, "logger": record.name, "message": message}
            tail = {"trace": trace} if trace else {}
            return json.dumps({**head, **fields, **tail}, default=str)
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
        return f"{stamp} {level} {message}{pairs}" + (f"\n{trace}" if trace else "")


def _quoted(value: object) -> str:
    """A value that cannot break out of its place in the line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    is_plain = text.isprintable() and not any(c in text for c in ' "=\\')
    return text if is_plain and text else json.dumps(text)
