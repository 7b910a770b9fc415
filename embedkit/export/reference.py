"""The torch side of the parity record: an encoder as an Embedder."""

import torch

from embedkit.encoders.encoder import Encoder
from embedkit.export.onnx import ServedGraph
from embedkit.preprocess import InputSpec, prepare
from embedkit.types import Embeddings, EncodedImages, Images

__all__ = ["TorchReference"]


class TorchReference:
    """An encoder in torch, on the CPU, that answers as the exported graph should.

    Args:
        encoder: Copied; the original stays as it is.
        threads: Threads of one call; None leaves torch's setting.
    """

    def __init__(self, encoder: Encoder, *, threads: int | None = None) -> None:
        self._graph = ServedGraph(encoder)
        self._threads = threads

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self._graph.encoder.feature_dim

    @property
    def digest(self) -> str:
        """``torch``: this side has no graph file."""
        return "torch"

    @property
    def input(self) -> InputSpec:
        """What the encoder takes."""
        return self._graph.encoder.input

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32, of one batch.

        Raises:
            InvalidInput: If the images are not uint8 (n, h, w, c), or a file is not decodable.
        """
        return self._run(images)[0]

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return features before normalisation, (n, d) float32, of one batch.

        Raises:
            InvalidInput: If the images are not uint8 (n, h, w, c), or a file is not decodable.
        """
        return self._run(images)[1]

    def _run(self, images: Images | EncodedImages) -> tuple[Embeddings, ...]:
        batch = torch.tensor(prepare(images, self.input))
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode():
                return tuple(output.numpy() for output in self._graph(batch))
        finally:
            torch.set_num_threads(before)
