"""Generate embedkit/wire/proto from proto/; ``--check`` fails if the files are out of step."""

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "proto" / "embedkit" / "v1").glob("*.proto"))
TARGET = ROOT / "embedkit" / "wire" / "proto"


def generate(out: Path) -> dict[str, str]:
    """Return the generated modules by file name, with imports that suit the package."""
    include = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{include}",
        *_googleapis(),
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(str(path) for path in SOURCES),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    files = {}
    for path in sorted((out / "embedkit" / "v1").iterdir()):
        text = path.read_text(encoding="utf-8")
        files[path.name] = re.sub(
            r"from embedkit\.v1 import", "from embedkit.wire.proto import", text
        )
    # Services without messages of their own produce empty stubs; keep only what is used.
    files.pop("tensor_pb2_grpc.py", None)
    return files


def _googleapis() -> list[str]:
    """Include path of google/rpc/status.proto, shipped with googleapis-common-protos."""
    import google.rpc

    return [f"-I{Path(path).parent.parent}" for path in google.rpc.__path__]


def main() -> int:
    """Write the stubs, or compare them with ``--check``."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder))
    files["__init__.py"] = '"""Generated from proto/embedkit/v1 by tools/gen_proto.py."""\n'
    if "--check" in sys.argv:
        stale = [
            n
            for n, t in files.items()
            if not (TARGET / n).is_file() or (TARGET / n).read_text() != t
        ]
        print(
            f"stale stubs: {stale}; run `make proto`" if stale else "stubs in step with proto/"
        )
        return bool(stale)
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
