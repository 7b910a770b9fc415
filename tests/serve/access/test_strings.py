"""Names and ids of any length and content in every field of every method."""

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from embedkit.serve.access.auth import AuthConfig
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, index_pb2, model_pb2
from embedkit.wire.status import from_rpc_error

ADMIN = "m" * 32
FIELDS = [
    (method, field)
    for file in (embedding_pb2, index_pb2, model_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    for field in method.input_type.fields
    if field.type == FieldDescriptor.TYPE_STRING and not method.client_streaming
]
HOSTILE = [
    "x" * 5_000_000,
    "\0",
    "..",
    "../../etc/passwd",
    "a/b",
    "name\nlevel=error",
    "%s%n{0}",
    "\u202e\ufeff\U0001f4a3",
    "';DROP TABLE vectors;--",
]
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}


def request_of(method, field, text):
    """A request that is good but for one string."""
    request = GetMessageClass(method.input_type)()
    names = method.input_type.fields_by_name
    if "pixels" in names:
        request.pixels.CopyFrom(encode_tensor(np.zeros((1, 4, 4, 3), np.uint8)))
    for name, value in (("k", 1), ("dim", 8)):
        if name in names:
            setattr(request, name, value)
    for other in ("name", "collection"):
        if other in names and method.containing_service.name == "IndexService":
            setattr(request, other, "photos")
    if "ids" in names:
        request.ids.append("one")
    if field.is_repeated:
        getattr(request, field.name)[:] = [text]
    else:
        setattr(request, field.name, text)
    return request.SerializeToString()


@pytest.fixture
def send(start, channel):
    _, address = start(auth=AuthConfig(admin_tokens=(ADMIN,)))
    opened = channel(address)

    def call(path, data):
        metadata = (("authorization", f"Bearer {ADMIN}"),)
        return (
            opened.unary_unary(path).future(data, metadata=metadata, timeout=30).exception(30)
        )

    create = index_pb2.CreateCollectionRequest(name="photos", model="tiny")
    assert (
        call("/embedkit.v1.IndexService/CreateCollection", create.SerializeToString()) is None
    )
    return call


def test_there_are_many_such_fields():
    assert len(FIELDS) > 20


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_every_answer_is_a_short_status_of_ours(send, text):
    for method, field in FIELDS:
        path = f"/{method.containing_service.full_name}/{method.name}"
        failure = send(path, request_of(method, field, text))
        if failure is None:
            continue  # an id or a filter may hold nearly anything
        where = f"{method.full_name}.{field.name}"
        assert failure.code().name in REFUSED, f"{where}: {failure.code()}"
        assert from_rpc_error(failure).reason != "INTERNAL", where
        assert len(failure.details()) < 1000, where
        assert len(text) < 1_000_000 or text not in failure.details(), where
    pixels = encode_tensor(np.zeros((1, 4, 4, 3), np.uint8))
    good = embedding_pb2.EmbedRequest(pixels=pixels).SerializeToString()
    assert send("/embedkit.v1.EmbeddingService/Embed", good) is None


def test_a_string_of_megabytes_is_refused_wherever_it_names_something(send):
    for method, field in FIELDS:
        path = f"/{method.containing_service.full_name}/{method.name}"
        failure = send(path, request_of(method, field, HOSTILE[0]))
        # Looking up or removing an id that nobody can have stored finds nothing.
        allowed = field.name == "ids" and method.name in ("Get", "Delete")
        assert failure is not None or allowed, f"{method.full_name}.{field.name}"
