"""Errors become ``google.rpc.Status`` and back: the one translator, for server and client."""

import contextlib

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from embedkit import errors
from embedkit.errors import EmbedkitError

__all__ = [
    "from_rpc_error",
    "from_status",
    "grpc_code",
    "retry_delay_s",
    "status_retry_s",
    "to_status",
]

DOMAIN = "embedkit"


def _family(base: type[EmbedkitError]) -> list[type[EmbedkitError]]:
    return [base, *(c for child in base.__subclasses__() for c in _family(child))]


_BY_REASON = {cls.reason: cls for cls in _family(EmbedkitError)}
# Failures of the transport and of other servers carry no reason, only a code.
_BY_CODE: dict[str, type[EmbedkitError]] = {
    "INVALID_ARGUMENT": errors.InvalidInput,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CANCELLED": errors.Cancelled,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "DATA_LOSS": errors.BundleDamaged,
    "RESOURCE_EXHAUSTED": errors.QueueFull,
}
# Peers drop metadata beyond 8 KiB, and with it the whole status.
_MESSAGE_BYTES = 800
# The transport uses the code of overload for this too, but here a retry never helps.
_TOO_LARGE = "larger than max"
_UNREACHED = "failed to connect"


def grpc_code(error: BaseException) -> grpc.StatusCode:
    """The gRPC status code of an error; INTERNAL for anything not ours."""
    name = error.status if isinstance(error, EmbedkitError) else EmbedkitError.status
    return grpc.StatusCode[name]


def to_status(error: BaseException) -> status_pb2.Status:
    """Return the status with ``ErrorInfo`` and, where a retry helps, ``RetryInfo``.

    An error that is not ours says only its type: its message may hold what no client should
    see. A long message, which may repeat what the caller sent, is cut.
    """
    ours = isinstance(error, EmbedkitError)
    kind = type(error) if isinstance(error, EmbedkitError) else EmbedkitError
    message = _shorten(str(error) if ours else f"internal error ({type(error).__name__})")
    status = status_pb2.Status(code=code_pb2.Code.Value(kind.status), message=message)
    facts = error.facts if isinstance(error, EmbedkitError) else {}
    info = error_details_pb2.ErrorInfo(reason=kind.reason, domain=DOMAIN, metadata=facts)
    status.details.add().Pack(info)
    retry_s = error.retry_s if isinstance(error, EmbedkitError) else None
    if retry_s is not None:
        delay = Duration(nanos=int(retry_s * 1e9) % 1_000_000_000, seconds=int(retry_s))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: status_pb2.Status) -> EmbedkitError:
    """Return the error a status stands for: by its reason if it is ours, else by its code."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _BY_REASON:
            return _ours(info, status.message)
    known = status.code in code_pb2.Code.values()
    return _from_code(code_pb2.Code.Name(status.code) if known else "", status.message)


def _ours(info: error_details_pb2.ErrorInfo, message: str) -> EmbedkitError:
    """The error that another embedkit described."""
    kind = _BY_REASON[info.reason]
    sequence = info.metadata.get("sequence", "")
    if kind is errors.SequenceConflict and sequence.isdecimal():
        return errors.SequenceConflict(message, int(sequence))
    return kind(message)


def from_rpc_error(error: grpc.RpcError) -> EmbedkitError:
    """Return the typed error of a failed call, synchronous or asyncio."""
    status = _details(error)
    if status is not None:
        return from_status(status)
    code = error.code()
    return _from_code(code.name, error.details() or code.name)


def retry_delay_s(error: grpc.RpcError) -> float | None:
    """Seconds that the server asks to wait before a retry, or None if it does not say."""
    status = _details(error)
    return None if status is None else status_retry_s(status)


def status_retry_s(status: status_pb2.Status) -> float | None:
    """Seconds that a status asks to wait before a retry, or None if it does not say."""
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


def _details(error: grpc.RpcError) -> status_pb2.Status | None:
    """The status that the server sent beside the code, if it arrived whole."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            with contextlib.suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return None


def _shorten(message: str) -> str:
    """A message that fits into the trailing metadata, twice, and once percent-encoded."""
    data = message.encode(errors="replace")
    if len(data) <= _MESSAGE_BYTES:
        return message
    half = _MESSAGE_BYTES // 2
    first, last = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{first} ... {last}"


def _from_code(code: str, message: str) -> EmbedkitError:
    if code == "UNIMPLEMENTED":
        return EmbedkitError(f"the server does not know this call: {message}")
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in message:
        return errors.MessageTooLarge(message)
    if code == "UNAVAILABLE" and _UNREACHED in message:
        return errors.Unavailable(
            f"expected a server that answers, got none: {message}; is it running there, and "
            "does it speak TLS or not as this side does?"
        )
    return _BY_CODE.get(code, EmbedkitError)(message)
