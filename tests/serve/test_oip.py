"""The Open Inference Protocol over a real channel, with our own stubs."""

import io
import subprocess
import sys

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, status_pb2
from PIL import Image

import embedkit
from embedkit.bundle import pack_arrays
from embedkit.detect.detector import Observation, detectors
from embedkit.preprocess import InputSpec, prepare
from embedkit.serve.config import ServerConfig
from embedkit.serve.server import running_server
from embedkit.wire.proto.inference import open_inference_pb2 as pb
from embedkit.wire.proto.inference import open_inference_pb2_grpc
from embedkit.wire.status import from_rpc_error

DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}
FIELDS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}
OUTPUTS = ["embedding", "features", "tokens", "labels", "probabilities", "ood_score"]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def stub(tmp_path, write_tiny, channel, rng):
    """A server of a bundle that has every output."""
    known = unit(rng.standard_normal((80, 8)).astype(np.float32))
    state = detectors.get("knn")().fit(Observation(known, known)).state()
    write_tiny(tmp_path / "m", tokens=True, extra={"detectors/knn.npz": pack_arrays(state)})
    config = ServerConfig(max_images=6)
    with running_server(
        models=tmp_path / "m", data_dir=tmp_path / "var", config=config
    ) as address:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel(address))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def framed(files):
    return b"".join(len(data).to_bytes(4, "little") + data for data in files)


def raw(images, **fields):
    """A request with raw pixels."""
    request = pb.ModelInferRequest(raw_input_contents=[images.tobytes()], **fields)
    request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return request


def typed(images, **fields):
    """A request with pixels as numbers."""
    request = pb.ModelInferRequest(**fields)
    tensor = request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    tensor.contents.uint_contents.extend(images.ravel().tolist())
    return request


def files(images, *, is_raw, shape=None):
    request = pb.ModelInferRequest()
    data = [png(image) for image in images]
    tensor = request.inputs.add(
        name="encoded", datatype="BYTES", shape=[len(data)] if shape is None else shape
    )
    if is_raw:
        request.raw_input_contents.append(framed(data))
    else:
        tensor.contents.bytes_contents.extend(data)
    return request


def read(response):
    """Outputs by name, from whichever contents there are."""
    found = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            assert not output.contents.ByteSize()
            flat = np.frombuffer(response.raw_output_contents[index], DTYPES[output.datatype])
        else:
            values = getattr(output.contents, FIELDS[output.datatype])
            flat = np.array(values, DTYPES[output.datatype])
        found[output.name] = flat.reshape(tuple(output.shape))
    return found


def failure(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value


def test_server_and_model_are_live_and_ready(stub):
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="tiny", version="1")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny", version="2")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="other")).ready


def test_metadata_names_what_goes_in_and_comes_out(stub):
    server = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (server.name, server.version) == ("embedkit", embedkit.__version__)
    model = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
    assert (model.name, list(model.versions)) == ("tiny", ["1"])
    assert model.properties["model_digest"].startswith("sha256:")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [
        ("images", "UINT8", [-1, 4, 4, 3]),
        ("encoded", "BYTES", [-1]),
    ]
    assert {t.name: (t.datatype, list(t.shape)) for t in model.outputs} == {
        "embedding": ("FP32", [-1, 8]),
        "features": ("FP32", [-1, 8]),
        "tokens": ("FP32", [-1, 2, 4]),
        "labels": ("INT64", [-1]),
        "probabilities": ("FP32", [-1, 3]),
        "ood_score": ("FP64", [-1]),
    }


@pytest.mark.parametrize("form", [raw, typed])
def test_every_output_comes_back_in_the_form_of_the_input(stub, images, reference, head, form):
    response = stub.ModelInfer(form(images, model_name="tiny", id="r1"))
    assert (response.id, response.model_name, response.model_version) == ("r1", "tiny", "1")
    assert response.parameters["model_digest"].string_param.startswith("sha256:")
    assert bool(response.raw_output_contents) == (form is raw)
    found = read(response)
    assert sorted(found) == sorted(OUTPUTS)
    features = reference(images)
    np.testing.assert_allclose(found["features"], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["embedding"], unit(features), atol=1e-6)
    np.testing.assert_array_equal(found["tokens"].reshape(5, 8), found["features"])
    np.testing.assert_array_equal(found["labels"], head.logits(features).argmax(axis=1))
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert found["ood_score"].shape == (5,)


def test_only_what_is_asked_for_comes_back_in_that_order(stub, images):
    request = raw(images)
    for name in ("ood_score", "embedding", "ood_score"):
        request.outputs.add(name=name)
    assert [o.name for o in stub.ModelInfer(request).outputs] == ["ood_score", "embedding"]


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("shape", [[5], [5, 1]])
def test_files_give_the_same_as_pixels(stub, images, is_raw, shape):
    request = files(images, is_raw=is_raw, shape=shape)
    request.outputs.add(name="embedding")
    found = read(stub.ModelInfer(request))["embedding"]
    np.testing.assert_array_equal(found, read(stub.ModelInfer(raw(images)))["embedding"])


def test_pixels_of_another_size_are_resized(stub, images):
    large = images.repeat(3, axis=1).repeat(3, axis=2)
    found = read(stub.ModelInfer(raw(large)))["embedding"]
    resized = prepare(large, InputSpec(4, 4, 3))
    expected = read(stub.ModelInfer(raw(resized)))["embedding"]
    np.testing.assert_array_equal(found, expected)


def one(name="images", datatype="UINT8", shape=(1, 4, 4, 3), data=bytes(48), **fields):
    request = pb.ModelInferRequest(raw_input_contents=[data], **fields)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def with_two_inputs():
    request = one()
    request.inputs.add(name="encoded", datatype="BYTES", shape=[1])
    return request


def with_both_contents():
    request = one()
    request.inputs[0].contents.uint_contents.append(1)
    return request


def with_large_numbers():
    request = typed(np.zeros((1, 4, 4, 3), np.uint8))
    request.inputs[0].contents.uint_contents[5] = 256
    return request


def with_shared_memory():
    request = one()
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return request


def with_classification():
    request = one()
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 3
    return request


def with_many_outputs():
    request = one()
    for _ in range(20_000):
        request.outputs.add(name="embedding")
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pb.ModelInferRequest(), "one input"),
        (one(shape=[1] * 100_000), "'images' with at most 4 axes, got 100000"),
        (one("encoded", "BYTES", [1] * 100_000), "'encoded' with at most 4 axes, got 100000"),
        (with_many_outputs(), "at most 16 outputs, got 1 and 20000"),
        (one(name="pixels"), "'pixels'"),
        (with_two_inputs(), "'encoded'"),
        (with_both_contents(), "raw or typed"),
        (with_large_numbers(), "at most 255"),
        (with_shared_memory(), "shared_memory_region"),
        (with_classification(), "classification"),
        (one(datatype="FP32"), "FP32"),
        (one(shape=(4, 4, 3)), "(n, h, w, c)"),
        (one(shape=(1, -4, -4, 3)), "(n, h, w, c)"),
        (one(shape=(1, 4, 4, 2), data=bytes(32)), "channels"),
        (one(data=bytes(47)), "48 values"),
        (one(shape=(0, 4, 4, 3), data=b""), "at least one image"),
        (one("encoded", "UINT8", (1,)), "BYTES"),
        (one("encoded", "BYTES", (1, 2)), "(n) or (n, 1)"),
        (one("encoded", "BYTES", (2,), framed([b"x"])), "2 files"),
        (one("encoded", "BYTES", (1,), framed([b"x", b"y"])), "1 elements"),
        (one("encoded", "BYTES", (1,), b"\x09\0\0\0abc"), "1 elements"),
        (one("encoded", "BYTES", (1,), b"\x09\0"), "1 elements"),
    ],
)
def test_malformed_requests_are_the_callers_fault(stub, request_, message):
    error = failure(stub.ModelInfer, request_)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).reason == "INVALID_INPUT"
    assert message in error.details()


@pytest.mark.parametrize(
    "request_",
    [one(model_name="other"), one(model_name="tiny", model_version="7")],
)
def test_what_is_not_there_is_not_found(stub, request_):
    assert failure(stub.ModelInfer, request_).code() == grpc.StatusCode.NOT_FOUND
    missing = pb.ModelMetadataRequest(name=request_.model_name, version=request_.model_version)
    assert failure(stub.ModelMetadata, missing).code() == grpc.StatusCode.NOT_FOUND


def test_an_unknown_output_is_not_found(stub):
    request = one()
    request.outputs.add(name="logits")
    error = failure(stub.ModelInfer, request)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "logits" in error.details()


def test_one_bad_file_fails_the_call_and_is_named(stub, images):
    request = files(images[:1], is_raw=False, shape=[2])
    request.inputs[0].contents.bytes_contents.append(b"junk")
    error = failure(stub.ModelInfer, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).reason == "BAD_IMAGE"
    assert error.details().startswith("image 1:")
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    assert status.code == code_pb2.INVALID_ARGUMENT


def test_too_many_images_are_message_too_large(stub):
    error = failure(stub.ModelInfer, raw(np.zeros((7, 4, 4, 3), np.uint8)))
    assert from_rpc_error(error).reason == "MESSAGE_TOO_LARGE"


def test_a_passed_timeout_parameter_is_the_deadline(stub, images):
    request = raw(images)
    request.parameters["timeout"].int64_param = 60_000_000
    assert stub.ModelInfer(request).outputs
    request.parameters["timeout"].int64_param = 1
    error = failure(stub.ModelInfer, request)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_it_can_be_switched_off(tiny_models, tmp_path, channel):
    with running_server(
        models=tiny_models, data_dir=tmp_path / "var", config=ServerConfig(oip=False)
    ) as address:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel(address))
        error = failure(stub.ServerLive, pb.ServerLiveRequest())
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


BESIDE_ANOTHER = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="other.proto", package="inference")
file.message_type.add(name="ModelInferRequest")
descriptor_pool.Default().Add(file)
from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server
from embedkit.errors import InvalidInput
import sys
config = dict(models=sys.argv[1], data_dir=sys.argv[2], bind="127.0.0.1:0")
from pathlib import Path
config = {k: Path(v) if k != "bind" else v for k, v in config.items()}
try:
    Server(ServerConfig(**config)).start()
except InvalidInput as error:
    assert "--no-oip" in str(error), error
else:
    raise SystemExit("started beside other stubs")
server = Server(ServerConfig(**config, oip=False))
server.start()
server.stop(1)
print("served")
"""


def test_beside_other_stubs_of_the_package_it_says_what_to_do(tiny_models, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_ANOTHER, str(tiny_models), str(tmp_path / "var")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "served\n", done.stderr
