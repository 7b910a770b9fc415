"""Bundle: one version of one model on disk, opened for reading."""

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath

import numpy as np

from embedkit.bundle.content import Arrays, Golden, Head, unpack_arrays
from embedkit.bundle.manifest import (
    GRAPHS,
    MANIFEST,
    MANIFEST_LIMIT_BYTES,
    Manifest,
    canonical,
    graph_name,
)
from embedkit.errors import BundleDamaged, InvalidInput, NotFound

__all__ = ["Bundle"]


class Bundle:
    """One version of one model on disk, opened for reading.

    Args:
        path: The directory ``<models>/<name>/<version>``.
        verify: Compare every file with its digest; this reads the whole bundle.

    Attributes:
        path: Where it lies.
        manifest: What it says of itself.

    Raises:
        NotFound: If there is no manifest at ``path``.
        BundleDamaged: If a file is missing, changed or unexpected.
    """

    def __init__(self, path: str | Path, *, verify: bool = True) -> None:
        self.path = Path(path)
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            raise NotFound(f"expected a bundle with {MANIFEST} at {self.path}, got none")
        self.manifest = Manifest.from_bytes(_read_file(manifest, MANIFEST_LIMIT_BYTES + 1))
        if verify:
            self.verify()

    def verify(self) -> None:
        """Compare every file with its recorded size and sha256.

        Raises:
            BundleDamaged: Names the first file that is missing, changed or unexpected.
        """
        extra = sorted(_entries(self.path) - set(self.manifest.files) - {MANIFEST})
        if extra:
            raise BundleDamaged(
                f"expected only recorded files in {self.path}, got also {extra[:5]}"
            )
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
        data = _read_file(self.path / name, record.bytes + 1)
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != record.bytes or digest != record.sha256:
            raise BundleDamaged(
                f"expected {self.path / name} with {record.bytes} bytes and sha256 "
                f"{record.sha256}, got other content; export the model again"
            )
        return data

    def arrays(self, name: str) -> Arrays:
        """Return the arrays of one recorded ``.npz`` file.

        Raises:
            NotFound: If the manifest does not list ``name``.
            BundleDamaged: If the file is changed or holds anything but plain arrays.
        """
        return unpack_arrays(self.read(name))

    def model_digest(self, precision: str = "fp32") -> str:
        """``sha256:...`` over the served graph and the input block.

        Heads and detectors do not enter: adding one keeps collections valid.

        Raises:
            NotFound: If the bundle has no graph in this precision.
        """
        record = self.manifest.files.get(graph_name(precision))
        if record is None:
            raise NotFound(
                f"expected a graph of {self.manifest.name}:{self.manifest.version} in one of "
                f"{list(self.precisions)}, got {precision!r}; "
                f"export again with --precision {precision}"
            )
        block = canonical(self.manifest.input.to_dict())
        return "sha256:" + hashlib.sha256(record.sha256.encode() + block).hexdigest()

    def graph(self, precision: str = "fp32") -> bytes:
        """The checked ONNX graph of one precision.

        Raises:
            NotFound: If the bundle has no graph in this precision.
            BundleDamaged: If its bytes are changed.
        """
        self.model_digest(precision)
        return self.read(graph_name(precision))

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that there is a graph in, fp32 first."""
        return tuple(p for p, file in GRAPHS.items() if file in self.manifest.files)

    def golden(self, precision: str = "fp32") -> Golden:
        """The golden images and the embeddings that they give in one precision.

        Those of a precision for which none are recorded are the fp32 ones.

        Raises:
            BundleDamaged: If ``golden.npz`` is absent, changed or without its arrays.
        """
        try:
            arrays = self.arrays("golden.npz")
            own = f"embeddings_{precision}"
            return Golden(
                np.asarray(arrays["images"], np.uint8),
                np.asarray(arrays[own if own in arrays else "embeddings"], np.float32),
            )
        except (KeyError, NotFound) as error:
            raise BundleDamaged(
                f"expected golden.npz with images and embeddings in {self.path}, got {error}"
            ) from error

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the ``heads`` or ``detectors`` in this bundle, sorted."""
        paths = (PurePosixPath(file) for file in self.manifest.files)
        return tuple(
            sorted(p.stem for p in paths if p.parent.name == folder and p.suffix == ".npz")
        )

    def head(self, name: str | None = None) -> Head:
        """Return a head; without a name ``default``, or the first where there is none.

        Raises:
            NotFound: If the bundle has no such head.
            BundleDamaged: If the head's arrays do not fit together.
        """
        names = self.names("heads")
        if not names or (name is not None and name not in names):
            raise NotFound(
                f"expected one of the heads {list(names)} of {self.path}, got {name!r}"
            )
        chosen = name or ("default" if "default" in names else names[0])
        try:
            return Head.from_arrays(self.arrays(f"heads/{chosen}.npz"))
        except InvalidInput as error:
            raise BundleDamaged(f"head {chosen!r} of {self.path}: {error}") from error


def _entries(folder: Path) -> set[str]:
    """Everything below a folder that is not a plain directory, by relative name."""
    found = set()
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(Path(path, name))]
        found |= {Path(path, name).relative_to(folder).as_posix() for name in [*files, *links]}
    return found


def _read_file(path: Path, limit_bytes: int) -> bytes:
    """At most ``limit_bytes`` of a plain file; a link or a device is refused."""
    try:
        # NONBLOCK so that a pipe in a file's place is an error, never a wait.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("something that is not a plain file")
            return file.read(limit_bytes)
    except OSError as error:
        raise BundleDamaged(f"expected the plain file {path}, got {error}") from error
