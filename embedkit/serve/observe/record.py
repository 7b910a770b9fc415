"""What is remembered of finished work, for metrics and the access log.

Named tuples: a frozen dataclass takes five times as long to make, and there are some per call.
"""

from typing import NamedTuple

__all__ = ["BatchRecord", "CallRecord", "ItemsRecord"]


class CallRecord(NamedTuple):
    """One finished call.

    Attributes:
        rpc: ``Service/Method``.
        code: Name of the status code.
        seconds: From the received message to the response.
        request_bytes: Size of the request message.
        request_id: The caller's own id, or empty.
        reason: ``ErrorInfo.reason`` of a failure, or empty.
        details: Status message of a failure, or empty.
        caller: Name of the key that the call came with, or empty.
    """

    rpc: str
    code: str
    seconds: float
    request_bytes: int
    request_id: str
    reason: str
    details: str
    caller: str = ""


class ItemsRecord(NamedTuple):
    """The images of one answered call: how many went well and badly, and the time per stage."""

    model: str
    good: int
    bad: int
    queue_s: float
    decode_s: float
    infer_s: float


class BatchRecord(NamedTuple):
    """One batch: images, seconds, and runs beyond the first."""

    model: str
    size: int
    seconds: float
    reruns: int
