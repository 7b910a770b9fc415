"""Synthetic images, the two extreme embedders, a real bundle, and a victim with gradients."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits

from embedkit.bundle import Bundle
from embedkit.evaluate.context import Context
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages

if TYPE_CHECKING:
    from embedkit.evaluate.attack import Target

SOURCE = SyntheticImages(classes=4)


@pytest.fixture
def source() -> SyntheticImages:
    return SOURCE


@pytest.fixture
def perfect() -> PerfectEmbedder:
    return PerfectEmbedder(SOURCE)


@pytest.fixture
def constant() -> ConstantEmbedder:
    return ConstantEmbedder(SOURCE.spec)


@pytest.fixture
def make_context(perfect: PerfectEmbedder) -> Callable[..., Context]:
    """A context over synthetic images; every field can be replaced."""

    def make(**fields: object) -> Context:
        given = {
            "served": perfect,
            "train": SOURCE.dataset(240, name="train"),
            "test": SOURCE.dataset(80, seed=1, name="test"),
            "ood": {"halves": SOURCE.novel(60)},
        }
        return Context(**{**given, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untrained encoder with a head and a detector, exported as any other."""
    import torch

    from embedkit.encoders.encoder import build_encoder
    from embedkit.export.additions import Additions
    from embedkit.export.bundling import Target, bundle_source
    from embedkit.export.source import Source

    torch.set_num_threads(1)
    config = {"name": "resnet", "input": SOURCE.spec.to_dict(), "width": 8, "blocks": [1, 1]}
    encoder = build_encoder(config, seed=1)
    models = tmp_path_factory.mktemp("models")
    additions = Additions(SOURCE.dataset(200, seed=5), ("knn",))
    return bundle_source(Source(encoder), Target(models, "toy"), additions)


@pytest.fixture
def files(source: SyntheticImages) -> Callable[[np.ndarray], tuple[bytes, ...]]:
    """Encode images as PNG files."""
    import io

    from PIL import Image

    def encode(images: np.ndarray) -> tuple[bytes, ...]:
        encoded = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
        return tuple(encoded)

    return encode


@pytest.fixture(scope="session")
def toy() -> "Target":
    """40 digits that an untrained encoder classifies correctly from 600 others."""
    import torch

    from embedkit.encoders.encoder import build_encoder
    from embedkit.evaluate.attack import Target
    from embedkit.evaluate.measurement.victim.vote import KnnHead
    from embedkit.evaluate.surrogate import TorchEmbedder
    from embedkit.preprocess import InputSpec

    torch.set_num_threads(1)
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    spec = InputSpec(8, 8, 1)
    encoder = build_encoder(
        {"name": "resnet", "input": spec.to_dict(), "width": 8, "blocks": [1, 1]}, seed=0
    )
    model = TorchEmbedder(encoder, "sha256:toy")
    bank = model.embed(images[:600])
    everything = KnnHead(bank, labels[:600], labels[600:])
    right = np.flatnonzero(everything.decide(model.embed(images[600:])) == labels[600:])[:40]
    head = KnnHead(bank, labels[:600], labels[600:][right])
    return Target(model, head, images[600:][right], tuple(map(str, right)), model)
