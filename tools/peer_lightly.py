"""lightly in an environment of its own: made where there is none, and asked line by line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Ask", "environment", "lightly", "version_in"]

FOLDER = Path("/tmp/embedkit-lightly")
"""Where the environment is made if nothing else is said."""

Ask = Callable[[dict[str, Any]], float]
"""Sends the options of one task to ``tools/peers/lightly_loop.py``; returns its answer."""

_ROOT = Path(__file__).resolve().parent.parent
_NEEDS = (
    "hydra-core",
    "lightly-utils",
    "lightning-utilities",
    "tqdm",
    "requests",
    "aenum",
    "pydantic",
)


def environment(folder: Path) -> str:
    """The Python of lightly's environment, made where there is none."""
    python = str(folder / "bin" / "python")
    if (folder / "done").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [python, "-m", "pip", "install", "-q", "-c", str(_ROOT / "constraints.txt")]
    subprocess.run([*pip, "torch", "numpy", "pillow", *_NEEDS], check=True)
    # Its wheels ask for a CUDA build of torch.
    subprocess.run([*pip, "--no-deps", "torchvision", "lightly"], check=True)
    (folder / "done").touch()
    return python


def version_in(python: str) -> str:
    """The version of lightly in an environment."""
    code = "from importlib.metadata import version; print(version('lightly'))"
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return found.stdout.strip()


@contextmanager
def lightly(python: str, pixels: Path) -> Iterator[Ask]:
    """Run lightly's loop on some images, with the torch that is installed here.

    Args:
        python: Of its environment.
        pixels: A ``.npy`` of uint8 (n, h, w, c).
    """
    command = [python, str(_ROOT / "tools" / "peers" / "lightly_loop.py"), str(pixels)]
    threads = {key: value for key, value in os.environ.items() if key.startswith("OMP_")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            "PYTHONPATH": str(_ROOT),
            "PYTHONWARNINGS": "ignore",
            "PATH": "/usr/bin:/bin",
            **threads,
        },
    )
    if process.stdin is None or process.stdout is None:
        raise TypeError("expected pipes")
    asked, answers = process.stdin, process.stdout
    try:
        ready = json.loads(answers.readline() or "{}")
        if ready.get("torch", "").split("+")[0] != version("torch").split("+")[0]:
            raise SystemExit(f"expected torch {version('torch')} beside lightly, got {ready}")

        def ask(options: dict[str, Any]) -> float:
            asked.write(json.dumps(options) + "\n")
            asked.flush()
            line = answers.readline()
            if not line:
                raise SystemExit(f"expected an answer of lightly's loop, got {process.wait()}")
            return float(json.loads(line))

        yield ask
    finally:
        asked.close()
        process.wait()
