"""A client needs numpy, gRPC and protobuf, and nothing that trains, serves or searches."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

BLOCK = """
import sys

NOT_IN_THE_BASE = {
    "torch", "torchvision", "onnxruntime", "onnx", "onnxscript", "faiss", "PIL", "sklearn",
    "scipy", "matplotlib", "jinja2", "safetensors", "prometheus_client", "grpc_health",
    "grpc_reflection", "grpc_tools", "kornia", "psutil", "jsonschema", "hypothesis",
}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NOT_IN_THE_BASE:
            raise ModuleNotFoundError(f"{name} is not in the base install", name=name)


sys.meta_path.insert(0, Blocker())
"""
USE = """
import asyncio
import sys

import numpy as np

import embedkit
import embedkit.aio
from embedkit.errors import BadImage, NotFound

address, images = sys.argv[1], np.zeros((300, 2, 2, 1), np.uint8)
with embedkit.connect(address) as client:
    z = client.embed(images, model="m")
    assert z.shape == (300, 4) and z.dtype == np.float32
    assert client.model("m").embed([b"file", images[0]]).shape == (2, 4)
    client.create_collection("c", model="m")
    client.upsert("c", ["a", "b"], images=[b"one", b"two"], payloads=[{"n": 1}, None])
    (hits,) = client.search("c", images=b"one", k=1)
    assert (hits[0].id, hits[0].payload) == ("a", {"n": 1})
    for call, error in (
        (lambda: client.embed(b"bad"), BadImage), (lambda: client.describe("d"), NotFound)
    ):
        try:
            call()
        except error:
            pass
        else:
            raise SystemExit(f"expected {error}")


async def main():
    async with embedkit.aio.connect(address) as client:
        assert (await client.embed(images)).shape == (300, 4)


asyncio.run(main())
print("embedkit", embedkit.__file__)
"""
COMMAND_LINE = "from embedkit.cli import main; main(['index', 'list', '--server', sys.argv[1]])"


@pytest.mark.parametrize("code", [USE, COMMAND_LINE])
def test_a_client_imports_nothing_but_the_base(address: str, code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK + code, address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_client_in_an_environment_of_its_own(
    address: str, tmp_path: Path, repository: Path
) -> None:
    """Install the checkout without extras; the package index of this machine gives the rest."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", str(repository)]
    constraints = ["-c", str(repository / "constraints.txt")]
    installed = subprocess.run(
        command + constraints, capture_output=True, text=True, check=False, env=environment
    )
    if installed.returncode and "Could not find a version" in installed.stderr:
        pytest.skip("no package index can be reached from here")
    assert installed.returncode == 0, installed.stderr
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.lower()
    for heavy in ("torch", "onnx", "faiss", "pillow", "scikit", "scipy", "matplotlib"):
        assert heavy not in listed
    used = subprocess.run(
        [str(python), "-c", USE, address],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert used.returncode == 0, used.stderr
    assert str(tmp_path) in used.stdout
