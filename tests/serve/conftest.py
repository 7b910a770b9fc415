"""A real bundle of three layers, and bare channels to a real server."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedkit.bundle import Bundle, Golden, Head, Manifest, write_bundle
from embedkit.preprocess import InputSpec
from embedkit.serve.loaded import LoadedModel

SIDE, CHANNELS, DIM = 4, 3, 8


def build_graph(seed: int = 0, *, dim: int = DIM, tokens: bool = False) -> bytes:
    """Scale to [0, 1], flatten, one matrix; the embedding is the normalised feature."""
    rng = np.random.default_rng(seed)
    pixels = SIDE * SIDE * CHANNELS
    weight = rng.standard_normal((pixels, dim)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array(255, np.float32), "scale"),
        numpy_helper.from_array(np.array([0, -1], np.int64), "flat"),
        numpy_helper.from_array(np.array(1e-12, np.float32), "tiny"),
        numpy_helper.from_array(np.array([0, 2, dim // 2], np.int64), "token_shape"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Reshape", ["unit", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["features"]),
        helper.make_node("ReduceL2", ["features"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"]),
        helper.make_node("Div", ["features", "safe"], ["embedding"]),
    ]
    shapes: dict[str, list[int]] = {"embedding": [dim], "features": [dim]}
    if tokens:
        nodes.append(helper.make_node("Reshape", ["features", "token_shape"], ["tokens"]))
        shapes["tokens"] = [2, dim // 2]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, CHANNELS])
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def features_of(images: np.ndarray, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Features of the tiny graph, written without onnx."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((SIDE * SIDE * CHANNELS, dim)).astype(np.float32)
    return (images.reshape(len(images), -1).astype(np.float32) / 255.0) @ weight


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def head_of(dim: int = DIM, classes: int = 3) -> Head:
    """A fixed linear classifier."""
    rng = np.random.default_rng(7)
    return Head(
        rng.standard_normal((classes, dim)).astype(np.float32),
        rng.standard_normal(classes).astype(np.float32),
        tuple(f"class{i}" for i in range(classes)),
    )


def write_bundle_of(
    models: Path,
    *,
    name: str = "tiny",
    version: int = 1,
    seed: int = 0,
    tokens: bool = False,
    extra: dict[str, bytes] | None = None,
) -> Bundle:
    """Write the tiny bundle with a head; ``extra`` adds or replaces files."""
    images = np.random.default_rng(1).integers(
        0, 256, (4, SIDE, SIDE, CHANNELS), dtype=np.uint8
    )
    outputs = {"embedding": [DIM], "features": [DIM]}
    if tokens:
        outputs["tokens"] = [2, DIM // 2]
    manifest = Manifest(
        name, version, InputSpec(SIDE, SIDE, CHANNELS), DIM, outputs, licence="CC0-1.0"
    )
    files = {
        "model.onnx": build_graph(seed, tokens=tokens),
        "golden.npz": Golden(images, unit(features_of(images, seed))).to_bytes(),
        "heads/default.npz": head_of().to_bytes(),
        **(extra or {}),
    }
    return write_bundle(models, manifest, files)


@pytest.fixture
def write_tiny() -> Callable[..., Bundle]:
    """Write a tiny bundle; see ``write_bundle_of``."""
    return write_bundle_of


@pytest.fixture
def reference() -> Callable[..., np.ndarray]:
    """Features of the tiny graph, written without onnx."""
    return features_of


@pytest.fixture
def head() -> Head:
    """The tiny bundle's classifier."""
    return head_of()


@pytest.fixture
def tiny_models(tmp_path: Path) -> Path:
    """A models folder with one tiny bundle."""
    write_bundle_of(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    """Five images of the tiny model's size."""
    return rng.integers(0, 256, (5, SIDE, SIDE, CHANNELS), dtype=np.uint8)


@pytest.fixture
def channel() -> Iterator[Callable[[str], grpc.Channel]]:
    """Open channels that are closed after the test."""
    opened: list[grpc.Channel] = []

    def open_channel(address: str, *options: tuple[str, int]) -> grpc.Channel:
        receive = ("grpc.max_receive_message_length", -1)
        opened.append(grpc.insecure_channel(address, options=[receive, *options]))
        return opened[-1]

    yield open_channel
    for one in opened:
        one.close()


class Held:
    """Stands before a model's session, which then runs only when it may."""

    def __init__(self, model: LoadedModel) -> None:
        self.may_run = threading.Event()
        self.runs = 0
        session = model.crew.sessions[0]
        self._original = session.run
        session.run = self.run  # type: ignore[method-assign]

    def run(self, images: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Count the images, wait, and run."""
        self.runs += len(images)
        assert self.may_run.wait(20)
        return self._original(images, outputs)


@pytest.fixture
def hold() -> Iterator[Callable[[LoadedModel], Held]]:
    """Hold models back until they may run, at the latest after the test."""
    held: list[Held] = []

    def hold_one(model: LoadedModel) -> Held:
        held.append(Held(model))
        return held[-1]

    yield hold_one
    for one in held:
        one.may_run.set()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    return wait
