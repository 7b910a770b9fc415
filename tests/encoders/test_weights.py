"""Weights of a finished encoder: the same, or an error that says why not."""

import json

import pytest
import torch
from safetensors.torch import save_file

from embedkit.encoders.encoder import build_encoder
from embedkit.encoders.weights import load_normalisation, load_weights
from embedkit.errors import BundleDamaged, InvalidInput, NotFound
from embedkit.preprocess import InputSpec


def _encoder(width=4, seed=0):
    spec = InputSpec(8, 8, 1).to_dict()
    config = {"name": "resnet", "blocks": [1, 1], "width": width, "input": spec}
    return build_encoder(config, seed=seed)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(_encoder(seed=5).state_dict(), path)
    return path


def test_the_weights_are_those_of_the_file(saved):
    encoder = _encoder(seed=1)
    load_weights(encoder, saved)
    expected = _encoder(seed=5).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in encoder.state_dict().items())


def test_another_encoder_is_refused(saved):
    with pytest.raises(InvalidInput, match=r"got others.*recipe\.toml"):
        load_weights(_encoder(width=8), saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        load_weights(_encoder(), tmp_path / "encoder.safetensors")


def test_bytes_that_are_no_weights_are_damage(tmp_path):
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(BundleDamaged, match="safetensors"):
        load_weights(_encoder(), path)


def test_the_normalisation_is_that_of_the_run_or_bundle(tmp_path):
    config = {"name": "resnet", "mean": [0.25], "std": [0.5]}
    for name, content in (("encoder.json", config), ("manifest.json", {"encoder": config})):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        assert load_normalisation(tmp_path) == {"mean": [0.25], "std": [0.5]}
        path.write_text("{}")
        with pytest.raises(BundleDamaged, match=name):
            load_normalisation(tmp_path)
        path.unlink()
    with pytest.raises(NotFound, match=r"encoder\.mean and encoder\.std"):
        load_normalisation(tmp_path)
