"""Graphs in float16 and int8 against their arithmetic written in numpy."""

import logging
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedkit.errors import InvalidInput
from embedkit.export.onnx import export_graph
from embedkit.export.quantize import to_fp16, to_int8
from embedkit.preprocess import InputSpec
from embedkit.runtime.session import Session

SPEC = InputSpec(height=3, width=4, channels=1)
PIXELS, DIM = 12, 5


def linear_graph(weight: np.ndarray) -> bytes:
    """Pixels in [0, 1] times a matrix; the embedding is the normalised product."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["unit"]),
        helper.make_node("Reshape", ["unit", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["features"]),
        helper.make_node("ReduceL2", ["features", "axis"], ["norm"], keepdims=1),
        helper.make_node("Clip", ["norm", "least"], ["divisor"]),
        helper.make_node("Div", ["features", "divisor"], ["embedding"]),
    ]
    constants = {
        "white": np.float32(255),
        "flat": np.array([-1, PIXELS], np.int64),
        "weight": weight.astype(np.float32),
        "axis": np.array([1], np.int64),
        "least": np.float32(1e-12),
    }
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", DIM])
        for name in ("embedding", "features")
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *SPEC.shape])],
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def session(graph: bytes, spec: InputSpec = SPEC) -> Session:
    return Session(graph, "x", spec, threads=1)


def dtypes(graph: bytes) -> set[str]:
    model = onnx.load_from_string(graph)
    return {TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (40, *SPEC.shape), dtype=np.uint8)


def test_half_precision_rounds_weights_and_activations(rng, images) -> None:
    weight = rng.standard_normal((PIXELS, DIM))
    smaller = to_fp16(linear_graph(weight))
    assert "FLOAT16" in dtypes(smaller)
    got = session(smaller).run(images, ("embedding", "features"))
    rows = (images.reshape(40, PIXELS).astype(np.float16) / np.float16(255)).astype(np.float64)
    expected = rows @ weight.astype(np.float16).astype(np.float64)
    # The product is rounded once more: to 11 bits.
    assert got["features"] == pytest.approx(expected, rel=2**-10, abs=2**-10)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    assert got["embedding"] == pytest.approx(expected / norms, abs=2e-3)


def test_half_precision_normalises_vectors_whose_square_it_cannot_hold(rng, images) -> None:
    """A length of 2,000 is fine in float16, its square is not: 65504 is the largest number."""
    weight = 1000 * rng.standard_normal((PIXELS, DIM))
    graph = linear_graph(weight)
    plain, half = session(graph), session(to_fp16(graph))
    assert np.linalg.norm(plain.features(images), axis=1).min() > 256
    assert half.embed(images) == pytest.approx(plain.embed(images), abs=2e-3)
    black = np.zeros((1, *SPEC.shape), np.uint8)
    assert not half.embed(black).any()


def affine(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """To 8 bits and back: a step of the range, which has 0 in it, over 255."""
    scale = (max(high, 0) - min(low, 0)) / 255
    zero = np.round(-min(low, 0) / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def test_int8_is_the_arithmetic_of_scales_and_zero_points(rng, images) -> None:
    weight = rng.standard_normal((PIXELS, DIM)) * np.array([1, 0.01, 10, 1, 1])
    smaller = to_int8(linear_graph(weight), images)
    assert {"INT8", "UINT8"} <= dtypes(smaller)
    # A column's scale: its largest weight becomes 64, of 7 bits and a sign.
    scales = np.abs(weight).max(axis=0) / 64
    rounded = np.round(weight / scales) * scales
    real = images.reshape(40, PIXELS) / 255
    inputs = affine(real, real.min(), real.max())
    products = real @ weight
    low, high = products.min(), products.max()
    expected = affine(inputs @ rounded, low, high)
    got = session(smaller).features(images)
    step = (high - low) / 255
    off = np.abs(got - expected)
    assert off.max() <= step * 1.001
    # A value halfway between two steps may be rounded to either.
    assert (off > step / 2).mean() < 0.02
    assert np.linalg.norm(session(smaller).embed(images), axis=1) == pytest.approx(1, abs=1e-5)


def test_the_scales_come_from_the_calibration_images(rng, images) -> None:
    graph = linear_graph(rng.standard_normal((PIXELS, DIM)))
    dark = images // 8
    plain, bright, darker = (
        session(g).features(dark) for g in (graph, to_int8(graph, images), to_int8(graph, dark))
    )
    assert np.abs(darker - plain).mean() < np.abs(bright - plain).mean() / 2
    # Outside its range a value is cut off.
    assert (
        np.abs(session(to_int8(graph, dark)).features(images)).max()
        < np.abs(session(graph).features(images)).max()
    )


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_every_architecture_converts_small_and_repeatably(kinds, kind: str, rng) -> None:
    encoder = kinds(kind)
    graph = export_graph(encoder)
    images = rng.integers(0, 256, (33, *encoder.input.shape), dtype=np.uint8)
    half, eighth = to_fp16(graph), to_int8(graph, images)
    assert half == to_fp16(graph)
    assert eighth == to_int8(graph, images)
    assert len(half) < 0.75 * len(graph)
    plain = session(graph, encoder.input)
    for smaller, limit in ((half, 2e-3), (eighth, 0.3)):
        other = session(smaller, encoder.input)
        assert other.outputs == plain.outputs
        assert np.abs(other.embed(images) - plain.embed(images)).max() < limit
    for data in (half, eighth):
        model = onnx.load_from_string(data)
        assert not model.metadata_props
        assert model.producer_name == "embedkit"


def test_without_images_there_are_no_scales(rng) -> None:
    graph = linear_graph(rng.standard_normal((PIXELS, DIM)))
    with pytest.raises(InvalidInput, match="at least one image to calibrate"):
        to_int8(graph, np.zeros((0, *SPEC.shape), np.uint8))


def test_neither_logs_nor_changes_where_modules_come_from(rng, images, caplog) -> None:
    before = list(sys.path)
    graph = linear_graph(rng.standard_normal((PIXELS, DIM)))
    with caplog.at_level(logging.INFO):
        to_fp16(graph)
        to_int8(graph, images)
    assert sys.path == before
    assert not caplog.records
