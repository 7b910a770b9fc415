"""What the array files of a bundle hold: golden images, heads, any named arrays."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedkit.errors import BundleDamaged, InvalidInput
from embedkit.types import Embeddings, Images

__all__ = ["Arrays", "Golden", "Head", "pack_arrays", "unpack_arrays"]

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Golden:
    """A few input images and the embeddings they must give.

    Attributes:
        images: (n, h, w, c) uint8.
        embeddings: (n, d) float32, in fp32.
        others: Likewise in the bundle's other precisions, by name.
    """

    images: Images
    embeddings: Embeddings
    others: Mapping[str, Embeddings] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Content of ``golden.npz``."""
        arrays: Arrays = {"images": self.images, "embeddings": self.embeddings}
        arrays |= {f"embeddings_{name}": z for name, z in self.others.items()}
        return pack_arrays(arrays)


@dataclass(frozen=True)
class Head:
    """A linear classifier on ``features``: logits = features @ weight.T + bias.

    Attributes:
        weight: (c, d) float32.
        bias: (c,) float32.
        class_names: One per row of ``weight``.
        data_digest: Content digest of the images that it was fitted on; empty if unknown.

    Raises:
        InvalidInput: If the shapes do not fit together.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    data_digest: str = ""

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        if (
            self.weight.ndim != 2
            or len(self.weight) != classes
            or self.bias.shape != (classes,)
        ):
            raise InvalidInput(
                f"expected weight (c, d) and bias (c,) for {classes} class names, "
                f"got {self.weight.shape} and {self.bias.shape}"
            )

    def logits(self, features: Embeddings) -> npt.NDArray[np.float32]:
        """Return (n, c) logits of (n, d) features."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)

    def to_bytes(self) -> bytes:
        """Content of ``heads/<name>.npz``."""
        names = np.asarray(self.class_names, dtype=np.str_)
        arrays = {"weight": self.weight, "bias": self.bias, "class_names": names}
        if self.data_digest:
            arrays["data_digest"] = np.asarray(self.data_digest)
        return pack_arrays(arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "Head":
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InvalidInput: If an array is missing or the shapes do not fit together.
        """
        missing = {"weight", "bias", "class_names"} - set(arrays)
        if missing:
            raise InvalidInput(
                f"expected the arrays weight, bias and class_names, got {sorted(arrays)}"
            )
        return cls(
            np.asarray(arrays["weight"], np.float32),
            np.asarray(arrays["bias"], np.float32),
            tuple(str(c) for c in arrays["class_names"]),
            str(arrays.get("data_digest", "")),
        )


def pack_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Return ``.npz`` bytes; the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> Arrays:
    """Read ``.npz`` bytes written by :func:`pack_arrays`; never runs code.

    Compressed entries are refused, so that reading never needs more memory than the file.

    Raises:
        BundleDamaged: If the bytes are no such file, hold pickled objects, or a header
            declares more than its entry holds.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            return {
                entry.filename.removesuffix(".npy"): _read_entry(archive, entry)
                for entry in entries
            }
    # numpy parses headers with Python's tokenizer, zipfile with struct: the errors are legion.
    except Exception as error:
        raise BundleDamaged(f"expected an .npz of plain arrays, got {error}") from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> npt.NDArray[np.generic]:
    """One array, after its header was compared with the size of the entry."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"the compressed entry {entry.filename!r}")
    content = io.BytesIO(archive.read(entry))
    version = np.lib.format.read_magic(content)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(content)
    count = 1
    for length in shape:
        count *= length
    if dtype.hasobject or count * dtype.itemsize != entry.file_size - content.tell():
        raise ValueError(f"{shape} {dtype} in {entry.file_size} bytes of {entry.filename!r}")
    content.seek(0)
    array: npt.NDArray[np.generic] = np.lib.format.read_array(content, allow_pickle=False)
    return array
