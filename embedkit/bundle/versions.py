"""Which versions of which models lie in a folder."""

import re
from pathlib import Path

from embedkit.bundle.manifest import MANIFEST, is_model_name
from embedkit.errors import NotFound

__all__ = ["find_bundle", "latest_bundles", "versions_in"]

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def find_bundle(models: str | Path, name: str, version: str | int | None = None) -> Path:
    """Return the directory of a version, by default the latest.

    Args:
        models: The folder that holds all models.
        name: Model name.
        version: Positive integer; None or empty for the highest there is.

    Raises:
        NotFound: If there is no such model or version.
    """
    folder = Path(models) / name
    versions = versions_in(folder) if is_model_name(name) else []
    if not versions:
        known = sorted(latest_bundles(models))
        raise NotFound(f"expected one of the models {known} in {models}, got {name!r}")
    wanted = str(versions[-1] if version in (None, "") else version)
    if wanted not in map(str, versions):
        raise NotFound(f"expected one of the versions {versions} of {name!r}, got {wanted!r}")
    return folder / wanted


def latest_bundles(models: str | Path) -> dict[str, Path]:
    """Return the latest version of each model in a folder, by name."""
    root = Path(models)
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    latest = {
        folder.name: versions_in(folder) for folder in folders if is_model_name(folder.name)
    }
    return {name: root / name / str(found[-1]) for name, found in latest.items() if found}


def versions_in(folder: Path) -> list[int]:
    """Version numbers in one model's folder, ascending; half-written ones do not count."""
    if not folder.is_dir():
        return []
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if _VERSION.fullmatch(p.name) and (p / MANIFEST).is_file()
    )
