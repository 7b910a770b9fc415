"""A small untrained encoder with a bank of real digits, as a victim that has gradients."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from embedkit.encoders.encoder import build_encoder
from embedkit.evaluate.attack import Target
from embedkit.evaluate.oracle import KnnHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.preprocess import InputSpec


@pytest.fixture(scope="session")
def toy():
    """40 digits that an untrained encoder classifies correctly from 600 others."""
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
