"""Bundle: the directory that passes between stages, every file under its digest.

``models/<name>/<version>/`` is append-only. It is written to a temporary directory and renamed
into place, so a bundle is either whole or absent. Reading one never runs code: JSON, numpy with
``allow_pickle=False``, safetensors and ONNX only.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.errors import AlreadyExists, BundleDamaged, InvalidInput, NotFound
from embedkit.preprocess import InputSpec
from embedkit.types import Embeddings, Images

__all__ = [
    "Bundle",
    "FileRecord",
    "Golden",
    "Head",
    "Manifest",
    "derive_bundle",
    "find_bundle",
    "latest_bundles",
    "write_bundle",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
GRAPHS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE = re.compile(r"(?:(?:heads|detectors)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class FileRecord:
    """Digest and size of one file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle is: the content of ``manifest.json``.

    Attributes:
        name: Lower-case model name.
        version: Positive integer.
        input: What the graph takes.
        dim: Dimensions of the embedding.
        outputs: Shape of each graph output without its first axis.
        encoder: Registry name and arguments that rebuild the torch twin; empty without one.
        objective: Name of the objective that trained it, or ``external``.
        recipe_digest: sha256 of ``recipe.toml``, or empty.
        data_digest: Content digest of the training data, or empty.
        git_revision: Revision of the code that exported it, or empty.
        versions: Package versions and the ONNX opset.
        licence: SPDX identifier, or empty if unknown.
        files: sha256 and size of every other file.
    """

    name: str
    version: int
    input: InputSpec
    dim: int
    outputs: dict[str, list[int]]
    encoder: dict[str, object] = field(default_factory=dict)
    objective: str = "external"
    recipe_digest: str = ""
    data_digest: str = ""
    git_revision: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    files: dict[str, FileRecord] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON with its own digest in it, so that any changed byte is noticed."""
        values = asdict(self) | {"input": self.input.to_dict(), "schema": SCHEMA_VERSION}
        values["self_sha256"] = hashlib.sha256(_canonical(values)).hexdigest()
        return _canonical(values)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleDamaged: If it is not JSON, of another schema, or not what was written.
        """
        try:
            values = json.loads(data)
            if values.pop("schema") != SCHEMA_VERSION:
                raise BundleDamaged(f"expected manifest schema {SCHEMA_VERSION}, got another")
            values.pop("self_sha256")
            values["input"] = InputSpec.from_dict(values["input"])
            values["files"] = {k: FileRecord(**v) for k, v in values["files"].items()}
            manifest = cls(**{f.name: values[f.name] for f in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleDamaged(f"expected a {MANIFEST}, got {error!r}") from error
        if manifest.to_bytes() != data:
            raise BundleDamaged(f"expected {MANIFEST} as it was written, got changed bytes")
        return manifest


@dataclass(frozen=True)
class Golden:
    """A few input images and the embeddings they must give."""

    images: Images
    embeddings: Embeddings


@dataclass(frozen=True)
class Head:
    """A linear classifier on ``features``: logits = features @ weight.T + bias.

    Attributes:
        weight: (c, d) float32.
        bias: (c,) float32.
        class_names: One per row of ``weight``.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    class_names: tuple[str, ...]

    def logits(self, features: Embeddings) -> npt.NDArray[np.float32]:
        """Return (n, c) logits of (n, d) features."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)

    def to_bytes(self) -> bytes:
        """Content of ``heads/<name>.npz``."""
        names = np.asarray(self.class_names, dtype=np.str_)
        return pack_arrays({"weight": self.weight, "bias": self.bias, "class_names": names})


class Bundle:
    """One version of one model on disk, opened for reading.

    Args:
        path: The directory ``<models>/<name>/<version>``.
        verify: Compare every file with its digest; this reads the whole bundle.

    Raises:
        NotFound: If there is no manifest at ``path``.
        BundleDamaged: If a file is missing, changed or unexpected.
    """

    def __init__(self, path: str | Path, *, verify: bool = True) -> None:
        self.path = Path(path)
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            raise NotFound(f"expected a bundle with {MANIFEST} at {self.path}, got none")
        self.manifest = Manifest.from_bytes(manifest.read_bytes())
        if verify:
            self.verify()

    def verify(self) -> None:
        """Compare every file with its recorded size and sha256.

        Raises:
            BundleDamaged: Names the first file that is missing, changed or unexpected.
        """
        present = {
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        }
        extra = present - set(self.manifest.files) - {MANIFEST}
        if extra:
            raise BundleDamaged(f"expected only recorded files, got also {sorted(extra)}")
        for name in self.manifest.files:
            self.read(name)

    def read(self, name: str) -> bytes:
        """Return the checked content of one recorded file.

        Raises:
            NotFound: If the manifest does not list ``name``.
            BundleDamaged: If the file is missing or differs from its digest.
        """
        record = self.manifest.files.get(name)
        if record is None:
            raise NotFound(f"expected one of {sorted(self.manifest.files)}, got {name!r}")
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleDamaged(f"expected {self.path / name}, got {error}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != record.sha256:
            raise BundleDamaged(f"expected {name} with sha256 {record.sha256}, got {digest}")
        return data

    def arrays(self, name: str) -> Arrays:
        """Return the arrays of one recorded ``.npz`` file."""
        with np.load(io.BytesIO(self.read(name)), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def model_digest(self, precision: str = "fp32") -> str:
        """``sha256:...`` over the served graph and the input block.

        Heads and detectors do not enter: adding one keeps collections valid.
        """
        record = self.manifest.files.get(_graph_name(precision))
        if record is None:
            have = [p for p, f in GRAPHS.items() if f in self.manifest.files]
            raise NotFound(f"expected a graph in precision {precision!r}, got only {have}")
        block = _canonical(self.manifest.input.to_dict())
        return "sha256:" + hashlib.sha256(record.sha256.encode() + block).hexdigest()

    def graph(self, precision: str = "fp32") -> bytes:
        """The checked ONNX graph of one precision."""
        self.model_digest(precision)
        return self.read(_graph_name(precision))

    def golden(self) -> Golden:
        """The golden images and embeddings."""
        arrays = self.arrays("golden.npz")
        return Golden(
            np.asarray(arrays["images"], np.uint8), np.asarray(arrays["embeddings"], np.float32)
        )

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the ``heads`` or ``detectors`` in this bundle, sorted."""
        found = (f for f in self.manifest.files if f.startswith(f"{folder}/"))
        return tuple(sorted(Path(f).stem for f in found))

    def head(self, name: str | None = None) -> Head:
        """Return a head; without a name the first one.

        Raises:
            NotFound: If the bundle has no such head.
        """
        names = self.names("heads")
        if not names:
            raise NotFound(f"expected a head in {self.path}, got a bundle without one")
        arrays = self.arrays(f"heads/{name or names[0]}.npz")
        return Head(
            np.asarray(arrays["weight"], np.float32),
            np.asarray(arrays["bias"], np.float32),
            tuple(str(c) for c in arrays["class_names"]),
        )


def pack_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Return ``.npz`` bytes; the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_bundle(
    models: str | Path, manifest: Manifest, files: Mapping[str, bytes], *, force: bool = False
) -> Bundle:
    """Write ``models/<name>/<version>`` in one rename.

    Args:
        models: The folder that holds all models; created if absent.
        manifest: Everything but ``files``, which is filled in here.
        files: Content of each file by its name inside the bundle.
        force: Replace an existing version.

    Returns:
        The bundle, opened.

    Raises:
        InvalidInput: If a name is not allowed.
        AlreadyExists: If the version exists and ``force`` is not set.
    """
    if not _NAME.fullmatch(manifest.name) or manifest.version < 1:
        raise InvalidInput(
            "expected a lower-case model name of letters, digits, '._-' and a version >= 1, "
            f"got {manifest.name!r} and {manifest.version}"
        )
    bad = [name for name in files if not _FILE.fullmatch(name) or name == MANIFEST]
    if bad:
        raise InvalidInput(f"expected plain file names, got {bad}")
    target = Path(models) / manifest.name / str(manifest.version)
    if target.exists() and not force:
        raise AlreadyExists(f"expected a free version, got {target}; use a higher --version")
    target.parent.mkdir(parents=True, exist_ok=True)
    records = {
        name: FileRecord(hashlib.sha256(data).hexdigest(), len(data))
        for name, data in sorted(files.items())
    }
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        content = {**files, MANIFEST: replace(manifest, files=records).to_bytes()}
        for name, data in content.items():
            _write_synced(staging / name, data)
        staging.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_folder(target.parent)
    return Bundle(target)


def derive_bundle(bundle: Bundle, added: Mapping[str, bytes]) -> Bundle:
    """Write the next version of a bundle with files added or replaced; the graph stays.

    Returns:
        The new version, whose ``model_digest`` equals the old one's.
    """
    files = {name: bundle.read(name) for name in bundle.manifest.files} | dict(added)
    models = bundle.path.parent.parent
    versions = _versions(bundle.path.parent)
    manifest = replace(bundle.manifest, version=max([*versions, bundle.manifest.version]) + 1)
    return write_bundle(models, manifest, files)


def find_bundle(models: str | Path, name: str, version: str | int | None = None) -> Path:
    """Return the directory of a version, by default the latest.

    Raises:
        NotFound: If there is no such model or version.
    """
    folder = Path(models) / name
    versions = _versions(folder) if _NAME.fullmatch(name) else []
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
    latest = {folder.name: _versions(folder) for folder in folders}
    return {name: root / name / str(found[-1]) for name, found in latest.items() if found}


def _versions(folder: Path) -> list[int]:
    """Version numbers in a model's folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / MANIFEST).is_file()
    )


def _graph_name(precision: str) -> str:
    if precision not in GRAPHS:
        raise InvalidInput(f"expected a precision of {sorted(GRAPHS)}, got {precision!r}")
    return GRAPHS[precision]


def _canonical(values: object) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


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
