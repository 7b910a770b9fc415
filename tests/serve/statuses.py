"""What a failed call tells its caller."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2


def status_of(error):
    """The status that a failed call carries, which agrees with its code."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert code_pb2.Code.Name(status.code) == error.code().name
    assert error.details() == status.message
    return status


def read(status):
    """Code, reason and seconds until a retry of a status."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "embedkit"
    seconds = None
    if len(status.details) > 1:
        assert status.details[1].Unpack(retry)
        seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return code_pb2.Code.Name(status.code), info.reason, seconds


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return read(status_of(caught.value))
