"""The manifest: what a bundle is, and the digest of each of its files."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields

from embedkit.errors import BundleDamaged, InvalidInput
from embedkit.preprocess import InputSpec

__all__ = [
    "GRAPHS",
    "MANIFEST",
    "MANIFEST_LIMIT_BYTES",
    "FileRecord",
    "Manifest",
    "canonical",
    "check_model_name",
    "graph_name",
    "is_model_name",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# A real manifest is about 4 kB; whoever hands over a larger one wants our memory.
MANIFEST_LIMIT_BYTES = 1 << 20
GRAPHS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE = re.compile(r"(?:(?:heads|detectors)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        values["self_sha256"] = hashlib.sha256(canonical(values)).hexdigest()
        return canonical(values)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleDamaged: If it is not JSON, of another schema, larger than 1 MiB, names a
                file outside the bundle, or is not what was written.
        """
        if len(data) > MANIFEST_LIMIT_BYTES:
            raise BundleDamaged(
                f"expected a {MANIFEST} of at most {MANIFEST_LIMIT_BYTES} bytes, got more"
            )
        try:
            values = json.loads(data)
            schema = values.pop("schema")
            values.pop("self_sha256")
            values["input"] = InputSpec.from_dict(values["input"])
            values["files"] = {k: FileRecord(**v) for k, v in values["files"].items()}
            manifest = cls(**{f.name: values[f.name] for f in fields(cls)})
            if schema != SCHEMA_VERSION:
                raise ValueError(f"schema {schema!r}, expected {SCHEMA_VERSION}")
            manifest.check()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            text = str(error)[:500]
            raise BundleDamaged(
                f"expected a {MANIFEST} of schema {SCHEMA_VERSION}, "
                f"got {type(error).__name__}: {text}"
            ) from error
        if manifest.to_bytes() != data:
            raise BundleDamaged(f"expected {MANIFEST} as it was written, got changed bytes")
        return manifest

    def check(self) -> None:
        """Compare every value with what it may be.

        Raises:
            InvalidInput: Names the first value that is not allowed.
        """
        check_model_name(self.name)
        _positive("version", self.version)
        _positive("dim", self.dim)
        for output, shape in self.outputs.items():
            if not isinstance(shape, list):
                raise InvalidInput(f"expected a list as shape of {output!r}, got {shape!r}")
            for length in shape:
                _positive(f"length in the shape of {output!r}", length)
        bad = [file for file in self.files if not _FILE.fullmatch(file) or file == MANIFEST]
        if bad:
            raise InvalidInput(f"expected plain file names, got {bad[:5]}")
        for file, record in self.files.items():
            if not _SHA256.fullmatch(record.sha256) or not _is_count(record.bytes):
                raise InvalidInput(f"expected a sha256 and a size for {file!r}, got {record}")


def graph_name(precision: str) -> str:
    """File name of the graph in one precision.

    Raises:
        InvalidInput: If there is no such precision.
    """
    if precision not in GRAPHS:
        raise InvalidInput(f"expected a precision of {sorted(GRAPHS)}, got {precision!r}")
    return GRAPHS[precision]


def canonical(values: object) -> bytes:
    """The one JSON text of a value: sorted keys, ASCII, a newline at the end."""
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return (text + "\n").encode()


def is_model_name(name: str) -> bool:
    """Whether ``name`` may be a model's name, hence a folder's."""
    return _NAME.fullmatch(name) is not None


def check_model_name(name: object) -> None:
    """Raise InvalidInput unless ``name`` may be a model's name."""
    if not isinstance(name, str) or not is_model_name(name):
        raise InvalidInput(
            "expected a model name of 1 to 64 lower-case letters, digits and '._-', "
            f"got {name!r}"
        )


def _positive(what: str, value: object) -> None:
    if not _is_count(value) or value == 0:
        raise InvalidInput(f"expected a whole number of at least 1 as {what}, got {value!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
