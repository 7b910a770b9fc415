"""Where a measurement was made: code, versions, machine."""

import hashlib
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from embedkit.runtime.cores import usable_cores

__all__ = ["code_digest", "machine", "package_versions"]


@cache
def code_digest() -> str:
    """sha256 over the package's Python files: the same code, the same digest.

    Read once: what runs in this process is what was there then.
    """
    import embedkit

    digest = hashlib.sha256()
    root = Path(embedkit.__path__[0])
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + digest.hexdigest()


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of each package that is installed, by name."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Processor, system and how busy it is: ``load`` is the mean run queue of a minute."""
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
