"""Small encoders with weights that are not the initial ones, and a finished run folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from embedkit.encoders.encoder import Encoder, build_encoder
from embedkit.preprocess import InputSpec

SPEC = InputSpec(height=8, width=8, channels=1)
CONFIGS: dict[str, Mapping[str, object]] = {
    "resnet": {"name": "resnet", "blocks": [1, 1], "width": 8},
    "resnet-a": {"name": "resnet", "blocks": [1, 1], "width": 8, "shortcut": "A"},
    "bottleneck": {"name": "resnet", "block": "bottleneck", "blocks": [1, 1], "width": 4},
    "vit": {"name": "vit", "dim": 24, "depth": 2, "heads": 2, "registers": 2},
    "vit-mean": {
        "name": "vit",
        "dim": 24,
        "depth": 1,
        "heads": 2,
        "patch": 3,
        "pooling": "mean",
    },
}


def make_encoder(kind: str, spec: InputSpec = SPEC, seed: int = 0) -> Encoder:
    """An encoder whose norms and biases are as varied as after training."""
    encoder = build_encoder({**CONFIGS[kind], "input": spec.to_dict()}, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in encoder.state_dict().items():
        if value.dtype.is_floating_point:
            noise = torch.rand(value.shape, generator=generator)
            value.add_(0.1 * noise if name.endswith("running_var") else 0.1 * (noise - 0.5))
    return encoder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small only wait for a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kinds() -> Callable[..., Encoder]:
    return make_encoder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What ``embedkit train`` leaves, without the training."""
    folder = tmp_path / "run"
    folder.mkdir()
    encoder = make_encoder("resnet")
    facts = {
        "objective": "simclr",
        "data_digest": "sha256:abc",
        "images": 1297,
        "steps": 10,
        "seconds": 12.3456,
        "device": "cpu",
        "class_names": [],
    }
    save_file(encoder.state_dict(), folder / "encoder.safetensors")
    (folder / "encoder.json").write_text(json.dumps(encoder.config))
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "recipe.toml").write_text('seed = 0\n[data]\nsource = "digits"\n')
    return folder
