"""The exported graph: what torch computes, for any batch, without traces of this machine."""

import collections
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from embedkit.encoders.encoder import Encoder
from embedkit.export.onnx import OPSET, ServedGraph, export_graph, strip
from embedkit.export.reference import TorchReference
from embedkit.runtime.session import Session

KINDS = ["resnet", "resnet-a", "bottleneck", "vit", "vit-mean"]


@dataclass(frozen=True)
class Exported:
    """An encoder, its graph, what the graph was before it was stripped, and its state."""

    encoder: Encoder
    graph: bytes
    unstripped: bytes
    before: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def exported(kinds) -> Callable[[str], Exported]:
    """Each kind exported once."""
    made = {}

    def get(kind: str) -> Exported:
        if kind not in made:
            encoder = kinds(kind)
            before = {name: value.clone() for name, value in encoder.state_dict().items()}
            seen = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "embedkit.export.onnx.strip",
                    lambda model: (seen.append(model.SerializeToString()), strip(model)),
                )
                graph = export_graph(encoder)
            made[kind] = Exported(encoder, graph, seen[0], before)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_equals_torch_at_every_batch_size(exported, rng, kind: str) -> None:
    encoder, graph = exported(kind).encoder, exported(kind).graph
    session = Session(graph, "", encoder.input, threads=1)
    twin = ServedGraph(encoder)
    names = ["embedding", "features"] + ["tokens"] * encoder.has_tokens
    assert list(session.outputs) == names
    for n in (1, 2, 3, 8, 64):
        images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
        answers = session.run(images, names)
        with torch.no_grad():
            expected = twin(torch.from_numpy(images))
        for name, value in zip(names, expected, strict=True):
            assert answers[name].shape == tuple(value.shape)
            np.testing.assert_allclose(answers[name], value.numpy(), rtol=1e-4, atol=5e-6)
        np.testing.assert_allclose(np.linalg.norm(answers["embedding"], axis=1), 1, atol=1e-5)


def test_the_graph_equals_the_encoder_called_by_hand(exported, rng) -> None:
    """Normalisation written out: (pixel / 255 - mean) / std, then the backbone, then L2."""
    encoder, graph = exported("resnet").encoder, exported("resnet").graph
    images = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    pixels = (images.transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.25
    encoder.eval()
    with torch.no_grad():
        features = encoder.net(torch.from_numpy(pixels.astype(np.float32))).features.numpy()
    encoder.train()
    session = Session(graph, "", encoder.input, threads=1)
    np.testing.assert_allclose(session.features(images), features, rtol=1e-4, atol=5e-6)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(session.embed(images), features / norms, atol=1e-5)


def test_a_zero_feature_vector_gives_a_zero_embedding(kinds, exported, rng) -> None:
    encoder = kinds("resnet")
    for name, value in encoder.state_dict().items():
        if name.endswith(
            ("bn2.weight", "bn2.bias", "downsample.1.weight", "downsample.1.bias")
        ):
            value.zero_()
        if name in ("net.bn1.weight", "net.bn1.bias"):
            value.zero_()
    graph = export_graph(encoder)
    assert graph != exported("resnet").graph
    session = Session(graph, "", encoder.input, threads=1)
    images = rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_array_equal(session.embed(images), 0)
    np.testing.assert_array_equal(TorchReference(encoder).embed(images), 0)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_nothing_of_this_machine_is_in_the_file(exported, kind: str) -> None:
    graph = exported(kind).graph
    lowered = graph.lower()
    folders = [os.getcwd(), str(Path.home()), sys.prefix, tempfile.gettempdir()]
    traces = [*folders, "site-packages", ".py"]
    found = [trace for trace in traces if trace.lower().encode() in lowered]
    assert found == []
    model = onnx.load_from_string(graph)
    assert (model.producer_name, model.producer_version) == ("embedkit", "")
    assert not model.metadata_props
    assert not model.functions

    # The search can find something: without stripping, torch leaves its sources' paths.
    assert b"encoders/" + kind.encode() + b".py" in exported(kind).unstripped


def test_the_file_is_one_checked_graph_of_the_stated_opset(exported) -> None:
    graph = exported("vit").graph
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    (images,) = model.graph.input
    batch, *rest = images.type.tensor_type.shape.dim
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert batch.dim_param
    assert [axis.dim_value for axis in rest] == [8, 8, 1]


def test_equal_weights_give_equal_bytes_in_another_process(exported) -> None:
    graph = exported("resnet").graph
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from conftest import make_encoder\n"
        "from embedkit.export.onnx import export_graph\n"
        "print(hashlib.sha256(export_graph(make_encoder('resnet'))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(graph).hexdigest()
    assert done.stderr == ""


def test_exporting_leaves_the_encoder_as_it_was(exported) -> None:
    for kind in ("resnet", "vit"):
        made = exported(kind)
        assert made.encoder.training
        for name, value in made.encoder.state_dict().items():
            assert torch.equal(value, made.before[name])


def test_onnxruntime_runs_hardly_more_nodes_than_the_network_has(exported, tmp_path) -> None:
    """Convolutions take in their norm, activation and sum; 9 nodes convert and normalise."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    encoder, graph = exported("resnet").encoder, exported("resnet").graph
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    counts = collections.Counter(node.op_type for node in nodes)
    layers = sum(isinstance(m, torch.nn.Conv2d) for m in encoder.modules())
    assert counts.pop("Conv") == layers
    # Reordering is onnxruntime's own memory layout, which depends on the width and the CPU.
    rest = sum(n for op, n in counts.items() if not op.startswith("Reorder"))
    assert rest <= 9, counts
    assert "BatchNormalization" not in counts


def test_three_channels_and_odd_sizes(kinds, rng) -> None:
    spec = type(kinds("resnet").input)(height=9, width=7, channels=3)
    encoder = kinds("vit-mean", spec)
    images = rng.integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    session = Session(export_graph(encoder), "", spec, threads=1)
    expected = TorchReference(encoder).embed(images)
    np.testing.assert_allclose(session.embed(images), expected, atol=1e-5)
