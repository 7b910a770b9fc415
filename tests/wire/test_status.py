"""Errors to google.rpc.Status and back."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from embedkit import errors
from embedkit.errors import EmbedkitError
from embedkit.wire.status import (
    from_rpc_error,
    from_status,
    grpc_code,
    retry_delay_s,
    to_status,
)

CLASSES = [getattr(errors, name) for name in errors.__all__]


class Failed(grpc.RpcError):
    """What a client sees of a call that failed."""

    def __init__(self, code, details="", trailing=()):
        self._values = (code, details, trailing)

    def code(self):
        return self._values[0]

    def details(self):
        return self._values[1]

    def trailing_metadata(self):
        return self._values[2]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_comes_back_as_itself(kind):
    status = to_status(kind("what and why"))
    assert code_pb2.Code.Name(status.code) == grpc_code(kind("")).name
    wire = status.SerializeToString()
    trailing = (("other", "x"), ("grpc-status-details-bin", wire))
    back = from_rpc_error(Failed(grpc_code(kind("")), "short", trailing))
    assert type(back) is kind
    assert str(back) == "what and why"


def test_the_reason_and_the_delay_are_details():
    status = to_status(errors.QueueFull("full"))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "embedkit")
    assert retry.retry_delay.ToTimedelta().total_seconds() == errors.QueueFull.retry_s
    assert len(to_status(errors.NotFound("")).details) == 1


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (errors.QueueFull("full"), 0.05),
        (errors.NotFound("gone"), None),
        (errors.RateLimited("spent"), 1.0),
        (errors.RateLimited("spent", retry_s=2.25), 2.25),
    ],
)
def test_the_delay_is_read_back(error, delay):
    trailing = (("grpc-status-details-bin", to_status(error).SerializeToString()),)
    assert retry_delay_s(Failed(grpc_code(error), "", trailing)) == delay
    assert retry_delay_s(Failed(grpc_code(error))) is None


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\ud800"])
def test_a_message_never_outgrows_the_metadata(letter):
    status = to_status(errors.NotFound(f"first {letter * 100_000} last"))
    assert len(status.SerializeToString()) < 1200
    assert status.message.startswith("first")
    assert status.message.endswith("last")


def test_an_error_that_is_not_ours_keeps_its_message_to_itself():
    status = to_status(KeyError("secret"))
    assert status.code == code_pb2.INTERNAL
    assert "secret" not in status.message
    assert "KeyError" in status.message
    assert grpc_code(KeyError("secret")) == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, "", errors.Cancelled),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", errors.QueueFull),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max (5 vs. 4)",
            errors.MessageTooLarge,
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (5 vs. 4)",
            errors.MessageTooLarge,
        ),
        (grpc.StatusCode.UNAUTHENTICATED, "no key", errors.Unauthenticated),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", EmbedkitError),
        (grpc.StatusCode.UNKNOWN, "?", EmbedkitError),
    ],
)
def test_failures_of_the_transport_are_told_by_code(code, details, kind):
    back = from_rpc_error(Failed(code, details))
    assert type(back) is kind
    assert (details or code.name) in str(back)


def test_damaged_details_are_passed_over():
    trailing = (("grpc-status-details-bin", b"\xff\xff"),)
    back = from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "gone", trailing))
    assert (type(back), str(back)) == (errors.NotFound, "gone")


def test_reasons_of_others_count_for_nothing():
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="down")
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="other.example")
    status.details.add().Pack(info)
    assert type(from_status(status)) is errors.Unavailable
    assert type(from_status(status_pb2.Status(code=999, message="x"))) is EmbedkitError
