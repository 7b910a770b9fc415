"""The torch twin of a served model: the only place where an evaluation has gradients.

torch is imported when a twin is built, so the served half of an evaluation works without it.
"""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedkit.bundle import Bundle
from embedkit.errors import BundleDamaged, MissingDependency, NotFound
from embedkit.evaluate.threat import Candidates
from embedkit.preprocess import InputSpec, prepare
from embedkit.types import Embeddings, EncodedImages, Images

if TYPE_CHECKING:
    import torch

    from embedkit.encoders.encoder import Encoder

__all__ = ["WEIGHTS", "TorchEmbedder", "random_twin", "twin"]

WEIGHTS = "encoder.safetensors"


class TorchEmbedder:
    """An Encoder as an Embedder, in evaluation mode and with frozen weights.

    Args:
        encoder: The torch module.
        digest: Digest of the model this is the twin of.
        batch: Images per forward pass.
        output: What ``embed`` and its relatives return: unit vectors, or ``features`` before
            normalisation for victims whose decision is made from these.
    """

    def __init__(
        self,
        encoder: "Encoder",
        digest: str,
        *,
        batch: int = 256,
        output: Literal["embedding", "features"] = "embedding",
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.batch = batch
        self.output = output
        self._digest = digest

    def giving(self, output: Literal["embedding", "features"]) -> "TorchEmbedder":
        """Return the same twin with another output."""
        return TorchEmbedder(self.encoder, self._digest, batch=self.batch, output=output)

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self.encoder.feature_dim

    @property
    def digest(self) -> str:
        """Digest of the model this is the twin of."""
        return self._digest

    @property
    def input(self) -> InputSpec:
        """What the encoder takes."""
        return self.encoder.input

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return unit vectors (or features, see ``output``), (n, d) float32."""
        return self._in_batches(images, self._finished)

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return features before normalisation, (n, d) float32."""
        return self._in_batches(images, lambda features: features)

    def embed_pixels(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """The output, (n, d), of float pixels (n, c, h, w) in [0, 1]; differentiable."""
        return self._finished(self.encoder.encode(pixels).features)

    def embed_levels(self, pixels: Candidates) -> Embeddings:
        """The output, (n, d), of pixels in grey levels that need not be whole, (n, h, w, c)."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(pixels), self.batch):
                part = torch.tensor(pixels[start : start + self.batch]).permute(0, 3, 1, 2)
                unit = (part / 255).to(self.encoder.mean)
                parts.append(self.embed_pixels(unit).float().cpu().numpy())
        return np.concatenate(parts)

    def _finished(self, features: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import normalize

        return features if self.output == "features" else normalize(features, dim=1)

    def _in_batches(
        self,
        images: Images | EncodedImages,
        finish: "Callable[[torch.Tensor], torch.Tensor]",
    ) -> Embeddings:
        import torch

        prepared = prepare(images, self.input)
        device = self.encoder.mean.device
        result = np.empty((len(prepared), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(prepared), self.batch):
                part = np.ascontiguousarray(prepared[start : start + self.batch])
                features = self.encoder(torch.tensor(part, device=device)).features
                result[start : start + self.batch] = finish(features).float().cpu().numpy()
        return result


def twin(bundle: Bundle) -> TorchEmbedder:
    """Return the torch module whose export the bundle serves, with its trained weights.

    Raises:
        NotFound: If the bundle was made without torch weights, so that there is no twin.
        MissingDependency: If torch is not installed.
        BundleDamaged: If the weights do not fit the architecture in the manifest.
    """
    encoder = _build(bundle, seed=0)
    if WEIGHTS not in bundle.manifest.files:
        raise NotFound(
            f"expected {WEIGHTS} in {bundle.path}, got a bundle without torch weights"
        )
    from safetensors.torch import load

    try:
        encoder.load_state_dict(load(bundle.read(WEIGHTS)))
    except RuntimeError as error:
        raise BundleDamaged(
            f"expected {WEIGHTS} of the encoder in the manifest, got {error}"
        ) from error
    return TorchEmbedder(_folded(encoder), bundle.model_digest())


def random_twin(bundle: Bundle, seed: int) -> TorchEmbedder:
    """Return the same architecture without training: the baseline of every learned number.

    Raises:
        NotFound: If the manifest names no encoder.
        MissingDependency: If torch is not installed.
    """
    encoder = _build(bundle, seed=seed)
    settings = json.dumps([encoder.config, seed], sort_keys=True).encode()
    return TorchEmbedder(_folded(encoder), "random:" + hashlib.sha256(settings).hexdigest())


def _folded(encoder: "Encoder") -> "Encoder":
    """The encoder in evaluation mode, without the batch norms that a graph has no use for."""
    from embedkit.encoders.folding import fold_norms

    fold_norms(encoder.eval())
    return encoder


def _build(bundle: Bundle, *, seed: int) -> "Encoder":
    config = bundle.manifest.encoder
    if not config:
        raise NotFound(
            f"expected an encoder in the manifest of {bundle.path}, got a bundle of a graph "
            "alone"
        )
    try:
        from embedkit.encoders.encoder import build_encoder
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"expected torch for gradients, got {error}; pip install 'embedkit[train]'"
        ) from error
    return build_encoder(config, seed=seed)
