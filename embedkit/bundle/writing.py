"""Writing bundles: whole or not at all, and never twice under one version."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from embedkit.bundle.directory import Bundle
from embedkit.bundle.manifest import GRAPHS, MANIFEST, FileRecord, Manifest
from embedkit.bundle.versions import versions_in
from embedkit.errors import AlreadyExists, InvalidInput

__all__ = ["derive_bundle", "write_bundle"]


def write_bundle(
    models: str | Path, manifest: Manifest, files: Mapping[str, bytes], *, force: bool = False
) -> Bundle:
    """Write ``models/<name>/<version>`` in one rename.

    Args:
        models: The folder that holds all models; created if absent.
        manifest: Everything but ``files``, which is filled in here.
        files: Content of each file by its name inside the bundle.
        force: Replace an existing version; only for models nobody serves yet.

    Returns:
        The bundle, opened.

    Raises:
        InvalidInput: If a name or another value of the manifest is not allowed.
        AlreadyExists: If the version exists and ``force`` is not set.
    """
    records = {
        name: FileRecord(hashlib.sha256(data).hexdigest(), len(data))
        for name, data in sorted(files.items())
    }
    complete = replace(manifest, files=records)
    complete.check()
    target = Path(models) / manifest.name / str(manifest.version)
    if target.exists() and not force:
        raise _taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        for name, data in {**files, MANIFEST: complete.to_bytes()}.items():
            _write_synced(staging / name, data)
        for folder in {staging, *(path.parent for path in staging.rglob("*"))}:
            _sync_folder(folder)
        staging.chmod(0o755)
        _move_into_place(staging, target, force)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_folder(target.parent)
    return Bundle(target)


def derive_bundle(
    bundle: Bundle, added: Mapping[str, bytes], *, removed: Collection[str] = ()
) -> Bundle:
    """Write the next version of a bundle with files added or replaced; the graph stays.

    Args:
        bundle: The version to start from.
        added: Content of each further file, such as ``heads/default.npz``.
        removed: Files that the new version does not have.

    Returns:
        The new version, whose ``model_digest`` equals the old one's.

    Raises:
        InvalidInput: If a graph is added or removed.
    """
    graphs = sorted({*added, *removed} & set(GRAPHS.values()))
    if graphs:
        raise InvalidInput(f"expected files beside the graph, got {graphs}; export a new model")
    kept = [name for name in bundle.manifest.files if name not in removed]
    files = {name: bundle.read(name) for name in kept} | dict(added)
    versions = [bundle.manifest.version, *versions_in(bundle.path.parent)]
    manifest = replace(bundle.manifest, version=max(versions) + 1)
    return write_bundle(bundle.path.parent.parent, manifest, files)


def _move_into_place(staging: Path, target: Path, force: bool) -> None:
    """Rename; a version that another writer finished meanwhile is not touched."""
    if force and target.exists():
        aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
        target.rename(aside)
        staging.rename(target)
        shutil.rmtree(aside)
        return
    try:
        staging.rename(target)
    except OSError as error:
        if target.exists():
            raise _taken(target) from error
        raise


def _taken(target: Path) -> AlreadyExists:
    return AlreadyExists(f"expected a free version, got {target}; use a higher --version")


def _write_synced(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
