"""A hand-written ONNX graph: cast, linear layer, rectifier, L2 norm; and a bundle around it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedkit.bundle import Bundle, Golden, Head, Manifest, write_bundle
from embedkit.preprocess import InputSpec

SPEC = InputSpec(height=4, width=3, channels=1)
DIM = 5
WEIGHT = np.random.default_rng(7).standard_normal((12, DIM)).astype(np.float32)


def expected_features(images: np.ndarray) -> np.ndarray:
    """What the graph computes, in float64 numpy."""
    return np.maximum(images.reshape(len(images), 12).astype(np.float64) / 255 @ WEIGHT, 0)


def expected_embeddings(images: np.ndarray) -> np.ndarray:
    features = expected_features(images)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def make_graph(
    *,
    batch: int | str = "n",
    dtype: int = TensorProto.UINT8,
    outputs: tuple[str, ...] = ("embedding", "features"),
    name: str = "images",
    rows: int = 4,
) -> bytes:
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["unit"]),
        helper.make_node("Reshape", ["unit", "flat"], ["vectors"]),
        helper.make_node("MatMul", ["vectors", "weight"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["features"]),
        helper.make_node("ReduceL2", ["features", "axis"], ["norm"], keepdims=1),
        helper.make_node("Clip", ["norm", "least"], ["divisor"]),
        helper.make_node("Div", ["features", "divisor"], ["embedding"]),
    ]
    constants = {
        "white": np.float32(255),
        "flat": np.array([-1, 12], np.int64),
        "weight": WEIGHT,
        "axis": np.array([1], np.int64),
        "least": np.float32(1e-12),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, dtype, [batch, rows, 3, 1])],
        [
            helper.make_tensor_value_info(out, TensorProto.FLOAT, [batch, DIM])
            for out in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def spec() -> InputSpec:
    return SPEC


@pytest.fixture
def graph() -> Callable[..., bytes]:
    return make_graph


@pytest.fixture
def embeddings_of() -> Callable[[np.ndarray], np.ndarray]:
    return expected_embeddings


@pytest.fixture
def features_of() -> Callable[[np.ndarray], np.ndarray]:
    return expected_features


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (11, 4, 3, 1), dtype=np.uint8)


@pytest.fixture
def head() -> Head:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((3, DIM)).astype(np.float32)
    return Head(weight, rng.standard_normal(3).astype(np.float32), ("ant", "bee", "cat"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Bundle]:
    """Write the next version, its files replaced or, with None, left out."""

    def write(**changes: bytes | None) -> Bundle:
        rng = np.random.default_rng(0)
        golden = rng.integers(0, 256, (4, 4, 3, 1), dtype=np.uint8)
        embeddings = expected_embeddings(golden).astype(np.float32)
        files = {
            "model_onnx": make_graph(),
            "golden_npz": Golden(golden, embeddings).to_bytes(),
        } | changes
        named = {
            name.replace("heads_", "heads/").replace("_", "."): data
            for name, data in files.items()
            if data is not None
        }
        version = 1 + len(list((tmp_path / "models" / "tiny").glob("*")))
        outputs = {"embedding": [DIM], "features": [DIM]}
        manifest = Manifest("tiny", version, SPEC, dim=DIM, outputs=outputs)
        return write_bundle(tmp_path / "models", manifest, named)

    return write
