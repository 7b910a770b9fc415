"""The ONNX graph of an encoder: uint8 images in, embedding and features out."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import nn

from embedkit.encoders.encoder import Encoder
from embedkit.errors import EmbedkitError

__all__ = ["OPSET", "ServedGraph", "export_graph", "serialised", "strip"]

OPSET = 20
"""The first with Gelu as one node; fixed, so that equal weights give equal files."""

# Below this norm a feature vector has no direction; it becomes the zero vector, never NaN.
SMALLEST_NORM = 1e-12


class ServedGraph(nn.Module):
    """An encoder with the L2 normalisation behind it: what the ONNX file computes.

    Args:
        encoder: Copied to the CPU, in evaluation mode and float32; the original stays as it is.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).cpu().float().eval()
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embedding (n, d), features (n, d) and, with patches, tokens (n, t, d)."""
        encoded = self.encoder(images)
        norms = torch.linalg.vector_norm(encoded.features, dim=1, keepdim=True)
        embedding = encoded.features / norms.clamp(min=SMALLEST_NORM)
        outputs = (embedding, encoded.features)
        return outputs if encoded.tokens is None else (*outputs, encoded.tokens)


def export_graph(encoder: Encoder) -> bytes:
    """Return the encoder as one ONNX file without traces of the machine that made it.

    Input ``images`` is uint8 (n, h, w, c) with any n; outputs are ``embedding``, ``features``
    and, where the encoder has patches, ``tokens``. Equal weights give equal bytes.

    Raises:
        EmbedkitError: If the exported graph does not pass ONNX's own checker.
    """
    graph = ServedGraph(encoder)
    spec = encoder.input
    # Two images: torch.export takes a first axis of 1 for a constant.
    example = torch.zeros(2, *spec.shape, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embedding", "features", *(["tokens"] if encoder.has_tokens else [])],
            dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise EmbedkitError("expected torch.onnx.export to return a program, got None")
    return serialised(program.model_proto)


def serialised(model: onnx.ModelProto) -> bytes:
    """The bytes of a graph, stripped and checked; equal graphs give equal bytes.

    Raises:
        EmbedkitError: If it is no valid graph.
    """
    strip(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EmbedkitError(f"expected a valid ONNX graph, got {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Remove doc strings, metadata and intermediate shapes, in place.

    torch writes the absolute path of every line that made a node into them.
    """
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    model.producer_name, model.producer_version, model.doc_string = "embedkit", "", ""
    graph.name, graph.doc_string = "embedkit", ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about itself and about torchvision's absence."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)
