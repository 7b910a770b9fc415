"""The torch twin: its weights, its gradients, and that nothing imports torch before it."""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from embedkit.bundle import Manifest, write_bundle
from embedkit.encoders.encoder import build_encoder
from embedkit.errors import BundleDamaged, NotFound
from embedkit.evaluate.surrogate import TorchEmbedder, random_twin, twin
from embedkit.preprocess import InputSpec
from embedkit.types import Embedder, FeatureEmbedder

SPEC = InputSpec(8, 8, 1)


def build(**arguments):
    config = {"name": "resnet", "input": SPEC.to_dict(), "width": 8, "blocks": [1, 1]}
    return build_encoder({**config, **arguments}, seed=7)


@pytest.fixture
def encoder():
    torch.set_num_threads(1)
    return build()


@pytest.fixture
def bundle(encoder, tmp_path):
    manifest = Manifest("toy", 1, SPEC, encoder.feature_dim, {}, encoder=encoder.config)
    weights = save(encoder.state_dict())
    # The twin never reads the graph; only its digest counts here.
    return write_bundle(
        tmp_path, manifest, {"model.onnx": b"x", "encoder.safetensors": weights}
    )


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)


def test_the_twin_has_the_bundles_weights_and_digest(bundle, encoder, images):
    model = twin(bundle)
    assert isinstance(model, Embedder)
    assert isinstance(model, FeatureEmbedder)
    assert model.digest == bundle.model_digest()
    assert model.input == SPEC
    with torch.no_grad():
        expected = encoder.eval()(torch.tensor(images)).features.numpy()
    # Batch norms are folded in, which moves the last bits.
    np.testing.assert_allclose(model.features(images), expected, rtol=1e-5, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(images), unit, atol=1e-6)
    assert model.embed(images).shape == (10, model.dim)


def test_batches_do_not_change_the_result(encoder, images):
    whole = TorchEmbedder(encoder, "x").embed(images)
    parts = TorchEmbedder(encoder, "x", batch=3).embed(images)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_evaluation_mode_is_on_and_weights_are_frozen(bundle):
    model = twin(bundle)
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_gradients_reach_the_pixels(bundle, images):
    model = twin(bundle)
    pixels = model.encoder.to_unit(torch.tensor(images)).requires_grad_(True)
    embeddings = model.embed_pixels(pixels)
    np.testing.assert_allclose(embeddings.detach().numpy(), model.embed(images), atol=1e-6)
    embeddings[:, 0].sum().backward()
    assert torch.count_nonzero(torch.as_tensor(pixels.grad)) > 0


def test_files_and_other_sizes_are_prepared(bundle, images):
    model = twin(bundle)
    buffer = io.BytesIO()
    Image.fromarray(images[0, :, :, 0]).save(buffer, "PNG")
    np.testing.assert_allclose(
        model.embed([buffer.getvalue()]), model.embed(images[:1]), atol=1e-6
    )
    assert model.embed(np.zeros((2, 20, 12, 3), np.uint8)).shape == (2, model.dim)


def test_the_random_twin_differs_from_the_trained_one_and_by_seed(bundle, images):
    one, same, other = (random_twin(bundle, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.embed(images), same.embed(images))
    assert one.digest == same.digest != other.digest
    assert not np.allclose(one.embed(images), other.embed(images))
    assert one.digest != twin(bundle).digest


def test_a_bundle_of_a_graph_alone_has_no_twin(tmp_path):
    bundle = write_bundle(tmp_path, Manifest("bare", 1, SPEC, 4, {}), {"model.onnx": b"x"})
    with pytest.raises(NotFound, match="expected an encoder in the manifest"):
        twin(bundle)
    with pytest.raises(NotFound, match="expected an encoder in the manifest"):
        random_twin(bundle, 0)


def test_a_bundle_without_weights_has_only_a_random_twin(bundle, tmp_path, images):
    manifest = replace(bundle.manifest, name="light")
    light = write_bundle(tmp_path, manifest, {"model.onnx": b"x"})
    with pytest.raises(NotFound, match=r"expected encoder\.safetensors"):
        twin(light)
    assert random_twin(light, 0).embed(images).shape == (10, light.manifest.dim)


def test_weights_of_another_architecture_are_damage(bundle, tmp_path):
    other = build(width=16)
    manifest = replace(bundle.manifest, name="mixed", encoder=other.config)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    with pytest.raises(BundleDamaged, match=r"expected encoder\.safetensors of the encoder"):
        twin(write_bundle(tmp_path, manifest, files))


def test_the_module_imports_no_torch():
    code = "import sys, embedkit.evaluate.surrogate, embedkit.evaluate.attack; "
    code += "import embedkit.evaluate.oracle, embedkit.evaluate.threat; "
    code += "raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
