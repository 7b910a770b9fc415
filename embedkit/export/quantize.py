"""The graph with smaller numbers: float16, or 8-bit integers with scales from real images."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from embedkit.errors import InvalidInput
from embedkit.export.onnx import serialised
from embedkit.types import Images

__all__ = ["CALIBRATION_IMAGES", "to_fp16", "to_int8"]

CALIBRATION_IMAGES = 256
"""Images whose activations choose the scales; more change the ranges little."""

Message = TypeVar("Message", onnx.NodeProto, onnx.TensorProto, onnx.ValueInfoProto)

_CHUNK_IMAGES = 32
# Where the work is. A sum of two branches stays float32: what is small beside the largest value
# of a residual stream would be lost, which costs a transformer six times the error.
_OPERATORS = ["Conv", "Gemm", "MatMul", "Relu"]


def to_fp16(graph: bytes) -> bytes:
    """Return the graph with weights and activations in float16; its inputs and outputs stay.

    The L2 normalisation stays in float32: a sum of squares leaves float16's range at a feature
    vector of length 256.

    Args:
        graph: What :func:`~embedkit.export.onnx.export_graph` gave.

    Raises:
        EmbedkitError: If the new graph does not pass ONNX's own checker.
    """
    model = _read(graph)
    outputs = [_copy(value) for value in model.graph.output]
    nodes, constants = _cut(model)
    half = _converter()(model, keep_io_types=True)
    half.graph.node.extend(nodes)
    half.graph.initializer.extend(constants)
    del half.graph.output[:]
    half.graph.output.extend(outputs)
    return serialised(half)


def to_int8(graph: bytes, images: Images) -> bytes:
    """Return the graph with 8-bit weights and activations, quantised statically.

    Each channel of a weight has its own scale, chosen from the weights; each activation has
    one, from its least and greatest value over the calibration images. Weights take 7 of the 8
    bits (-64 to 64), because processors without VNNI add two products in 16 bits, which
    saturate with 8: so the graph means the same everywhere.

    Args:
        graph: What :func:`~embedkit.export.onnx.export_graph` gave.
        images: (n, h, w, c) uint8 at the model's size, like those that it will see; n >= 1.

    Raises:
        InvalidInput: If there are no images.
        EmbedkitError: If the new graph does not pass ONNX's own checker.
    """
    if len(images) == 0:
        raise InvalidInput("expected at least one image to calibrate int8 on, got none")
    model = _read(graph)
    blocked = _normalisation(model)
    # It asks for a graph with folded constants and batch norms, which this one is.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(prefix="embedkit-int8-") as folder:
        before, after = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        before.write_bytes(model.SerializeToString())
        quantize_static(
            before,
            after,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=blocked,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return serialised(onnx.load_from_string(after.read_bytes()))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Hands the images to the calibration, some at a time."""

    def __init__(self, images: Images) -> None:
        self._chunks: Iterator[dict[str, npt.NDArray[np.uint8]]] = (
            {"images": images[i : i + _CHUNK_IMAGES]}
            for i in range(0, len(images), _CHUNK_IMAGES)
        )

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """The next batch, or None at the end."""
        return next(self._chunks, None)


def _converter() -> Callable[..., onnx.ModelProto]:
    """The conversion of onnxruntime, without the folder that it adds to the import path."""
    path = list(sys.path)
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    finally:
        sys.path[:] = path
    return cast(Callable[..., onnx.ModelProto], convert_float_to_float16)


def _cut(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Take the normalisation out of the graph, which then ends with the features.

    Returns:
        Its nodes, and copies of the constants that they use under names of their own.
    """
    graph, names = model.graph, set(_normalisation(model))
    nodes = [_copy(node) for node in graph.node if node.name in names]
    kept = [node for node in graph.node if node.name not in names]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    taken = []
    for node in nodes:
        for i, name in enumerate(node.input):
            if name in constants:
                node.input[i] = f"{node.name}.{i}"
                taken.append(_copy(constants[name]))
                taken[-1].name = node.input[i]
    outputs = [value for value in graph.output if value.name != "embedding"]
    for field, values in ((graph.node, kept), (graph.output, outputs)):
        copies = [_copy(value) for value in values]
        del field[:]
        field.extend(copies)
    return nodes, taken


def _copy(message: Message) -> Message:
    """A message of its own: deleting a list frees what it held."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _read(graph: bytes) -> onnx.ModelProto:
    """The graph, with a name for every node."""
    model = onnx.load_from_string(graph)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
    return model


def _normalisation(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between ``features`` and ``embedding``."""
    reached, names = {"features"}, []
    for node in model.graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    return names
