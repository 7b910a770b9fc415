"""Bundle: the directory that passes between stages, every file under its digest.

``models/<name>/<version>/`` is append-only. It is written to a temporary directory and renamed
into place, so a bundle is either whole or absent. Reading one never runs code: JSON, numpy with
``allow_pickle=False``, safetensors and ONNX only.
"""

from embedkit.bundle.content import Arrays, Golden, Head, pack_arrays, unpack_arrays
from embedkit.bundle.directory import Bundle
from embedkit.bundle.manifest import GRAPHS, MANIFEST, FileRecord, Manifest
from embedkit.bundle.versions import find_bundle, latest_bundles
from embedkit.bundle.writing import derive_bundle, write_bundle

__all__ = [
    "GRAPHS",
    "MANIFEST",
    "Arrays",
    "Bundle",
    "FileRecord",
    "Golden",
    "Head",
    "Manifest",
    "derive_bundle",
    "find_bundle",
    "latest_bundles",
    "pack_arrays",
    "unpack_arrays",
    "write_bundle",
]
