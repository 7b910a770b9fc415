"""Two plain networks to serve: one that costs as much as a call, one that costs ten times that.

Their weights are random: only the time they take matters.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedkit.bundle import Golden, Manifest, write_bundle
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec
from embedkit.runtime.session import Session

if TYPE_CHECKING:
    import onnx

__all__ = ["NETWORKS", "build_network", "write_network"]

_SIDE, _DIM = 32, 384
_OPSET, _IR = 17, 10


class Network(NamedTuple):
    """Channels of every convolution, and how many there are behind the stem."""

    channels: int
    blocks: int


NETWORKS = {"light": Network(64, 2), "heavy": Network(128, 6)}
"""About 0.3 and 3 ms per 32 x 32 image on one core of a 2020s server."""


def write_network(models: Path, name: str) -> Path:
    """Write the bundle of a network and return its directory.

    Args:
        models: The folder of all models.
        name: ``light`` or ``heavy``.

    Raises:
        InvalidInput: If the name is another.
    """
    graph = build_network(name)
    spec = InputSpec(_SIDE, _SIDE, 3)
    images = np.random.default_rng(1).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    session = Session(graph, "sha256:bench", spec, threads=1)
    golden = Golden(images, session.run(images, ["embedding"])["embedding"])
    shapes = {"embedding": [_DIM], "features": [_DIM]}
    manifest = Manifest(name, 1, spec, _DIM, shapes)
    return write_bundle(
        models, manifest, {"model.onnx": graph, "golden.npz": golden.to_bytes()}
    ).path


def build_network(name: str) -> bytes:
    """Return the ONNX graph of a network: uint8 images (n, 32, 32, 3) to embeddings (n, 384).

    Args:
        name: ``light`` or ``heavy``.

    Raises:
        InvalidInput: If the name is another.
    """
    if name not in NETWORKS:
        raise InvalidInput(f"expected a network of {list(NETWORKS)}, got {name!r}")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "scale"),
        numpy_helper.from_array(np.array(1e-12, np.float32), "tiny"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    last = _add_convolutions(nodes, constants, NETWORKS[name], rng)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "last"], ["features"]),
        helper.make_node("ReduceL2", ["features"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"]),
        helper.make_node("Div", ["features", "safe"], ["embedding"]),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("images", TensorProto.UINT8, ["n", _SIDE, _SIDE, 3])]
    outputs = [info(n, TensorProto.FLOAT, ["n", _DIM]) for n in ("embedding", "features")]
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    return bytes(model.SerializeToString())


def _add_convolutions(
    nodes: "list[onnx.NodeProto]",
    constants: "list[onnx.TensorProto]",
    network: Network,
    rng: np.random.Generator,
) -> str:
    """Add the stem of stride 2, the blocks and the last matrix; return the last name."""
    from onnx import helper, numpy_helper

    fan_in = 3 * 9
    for i in range(network.blocks + 1):
        shape = (network.channels, fan_in // 9, 3, 3)
        weight = rng.standard_normal(shape) / np.sqrt(fan_in / 2)
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        strides = [2 if i == 0 else 1] * 2
        names = [f"x{i}", f"w{i}"], [f"c{i}"]
        nodes.append(helper.make_node("Conv", *names, pads=[1] * 4, strides=strides))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
        fan_in = network.channels * 9
    last = rng.standard_normal((network.channels, _DIM)).astype(np.float32)
    constants.append(numpy_helper.from_array(last, "last"))
    return f"x{network.blocks + 1}"
