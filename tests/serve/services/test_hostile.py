"""Mutated and random messages: every answer is a status of ours, and the server goes on."""

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.serve.server import running_server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2 as pb
from embedkit.wire.status import from_rpc_error

GOOD = pb.EmbedRequest(
    request_id="r",
    pixels=encode_tensor(np.zeros((2, 4, 4, 3), np.uint8)),
    outputs=[pb.EMBEDDING, pb.CLASS],
    dims=4,
).SerializeToString()
FILES = pb.EmbedRequest(encoded={"data": [b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a"]})
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}

edits = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 255), st.sampled_from("sid")), max_size=6
)


def mutate(data: bytes, changes: list[tuple[int, int, str]]) -> bytes:
    """Set, insert or delete bytes."""
    out = bytearray(data)
    for position, value, kind in changes:
        at = position % max(len(out), 1)
        if kind == "i":
            out.insert(at, value)
        elif kind == "s" and out:
            out[at] = value
        elif kind == "d" and out:
            del out[at]
    return bytes(out)


@pytest.fixture
def call(tiny_models, tmp_path, channel):
    """Send bytes to a method and return the code; what is refused must say why."""
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        opened = channel(address)

        def send(data: bytes, method: str = "EmbeddingService/Embed") -> grpc.StatusCode:
            failure = opened.unary_unary(f"/embedkit.v1.{method}").future(data).exception(10)
            if failure is None:
                return grpc.StatusCode.OK
            assert from_rpc_error(failure).reason != "INTERNAL", failure.details()
            return failure.code()

        yield send
        assert send(GOOD) == grpc.StatusCode.OK


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(base=st.sampled_from([GOOD, FILES.SerializeToString()]), changes=edits)
def test_mutated_messages(call, base, changes):
    assert call(mutate(base, changes)) in EXPECTED


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.binary(max_size=200),
    method=st.sampled_from(
        ["EmbeddingService/Embed", "ModelService/GetModel", "ModelService/ListModels"]
    ),
)
def test_random_bytes(call, data, method):
    assert call(data, method) in EXPECTED
