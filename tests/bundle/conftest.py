"""A small bundle whose graph is only bytes: nothing here runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedkit.bundle import Bundle, Golden, Head, Manifest, pack_arrays, write_bundle
from embedkit.preprocess import InputSpec


def manifest(name: str = "tiny", version: int = 1) -> Manifest:
    spec = InputSpec(height=4, width=4, channels=1)
    return Manifest(name, version, spec, dim=2, outputs={"embedding": [2], "features": [2]})


def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    head = Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("left", "right"))
    return {
        "model.onnx": rng.bytes(200),
        "encoder.safetensors": rng.bytes(100),
        "golden.npz": Golden(images, np.eye(2, dtype=np.float32)).to_bytes(),
        "heads/default.npz": head.to_bytes(),
        "detectors/knn.npz": pack_arrays({"memory": np.ones((3, 2), np.float32)}),
        "CARD.md": b"# tiny\n",
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a version of ``tiny`` into ``tmp_path / "models"``, with other files if given."""

    def write(version: int = 1, content: dict[str, bytes] | None = None) -> Bundle:
        chosen = files() if content is None else content
        return write_bundle(tmp_path / "models", manifest(version=version), chosen)

    return write


@pytest.fixture
def bundle(write: Callable[..., Bundle]) -> Bundle:
    return write()


@pytest.fixture
def content() -> dict[str, bytes]:
    return files()


@pytest.fixture
def plain_manifest() -> Manifest:
    return manifest()
