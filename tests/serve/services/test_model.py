"""ModelService over a real channel."""

import json

import grpc
import pytest

from embedkit.bundle import Bundle, pack_arrays
from embedkit.detect.detector import Observation, detectors
from embedkit.detect.threshold import Threshold
from embedkit.serve.server import running_server
from embedkit.wire.proto import model_pb2, model_pb2_grpc
from embedkit.wire.status import from_rpc_error


@pytest.fixture
def stub(tmp_path, write_tiny, channel, rng):
    known = rng.standard_normal((80, 8)).astype("f4")
    state = detectors.get("knn")().fit(Observation(known, known)).state()
    threshold = Threshold(0.25, 0.2, 0.3, 0.95, 0.95, 16)
    detector = pack_arrays({**state, **threshold.to_arrays()})
    write_tiny(tmp_path / "m", version=1)
    write_tiny(tmp_path / "m", version=2, seed=1, extra={"detectors/knn.npz": detector})
    with running_server(models=tmp_path / "m", data_dir=tmp_path / "var") as address:
        yield model_pb2_grpc.ModelServiceStub(channel(address))


def test_a_model_is_described(stub, tmp_path, head):
    model = stub.GetModel(model_pb2.GetModelRequest(name="tiny"))
    bundle = Bundle(tmp_path / "m" / "tiny" / "2")
    assert (model.name, model.version) == ("tiny", "2")
    assert model.model_digest == bundle.model_digest()
    assert (model.height, model.width, model.channels, model.dim) == (4, 4, 3, 8)
    assert list(model.outputs) == ["EMBEDDING", "FEATURES", "CLASS", "OOD_SCORE"]
    assert tuple(model.class_names) == head.class_names
    assert model.provider == "CPUExecutionProvider"
    assert (list(model.heads), list(model.detectors)) == (["default"], ["knn"])
    assert (model.ood_detector, model.ood_threshold) == ("knn", 0.25)
    assert model.max_batch_size == 64
    assert json.loads(model.manifest_json)["licence"] == "CC0-1.0"


def test_only_the_latest_is_served_and_listed_with_the_limits(stub):
    listed = stub.ListModels(model_pb2.ListModelsRequest())
    assert [(m.name, m.version) for m in listed.models] == [("tiny", "2")]
    assert listed.max_message_bytes == 32 << 20
    assert listed.max_images_per_request == 1024


@pytest.mark.parametrize(("name", "version"), [("tiny", "1"), ("other", "")])
def test_what_is_not_loaded_is_not_found(stub, name, version):
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(model_pb2.GetModelRequest(name=name, version=version))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_loading_and_unloading_need_an_admin_token_that_there_is_not(stub):
    for call, request in (
        (stub.LoadModel, model_pb2.LoadModelRequest(name="tiny", version="1")),
        (stub.UnloadModel, model_pb2.UnloadModelRequest(name="tiny")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert from_rpc_error(caught.value).reason == "PERMISSION_DENIED"
