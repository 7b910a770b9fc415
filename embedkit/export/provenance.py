"""Which code and which packages made a bundle."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from embedkit.export.onnx import OPSET

__all__ = ["package_versions", "revision"]


def package_versions() -> dict[str, str]:
    """Versions of what shaped the graph, and its opset."""
    return {
        "embedkit": version("embedkit"),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": str(OPSET),
        "torch": torch.__version__,
    }


def revision() -> str:
    """Revision of this code, with ``-dirty`` if it is changed; empty outside its checkout."""
    package = Path(__file__).resolve().parent.parent
    try:
        # A virtual environment inside another project's checkout must not give that project's.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        head = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()
