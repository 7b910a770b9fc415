"""Synthetic images, the two extreme embedders, and one real bundle of an untrained encoder."""

from collections.abc import Callable

import numpy as np
import pytest

from embedkit.bundle import Bundle
from embedkit.evaluate.context import Context
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages

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
