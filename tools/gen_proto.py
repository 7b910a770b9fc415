"""Generate embedkit/wire/proto from proto/; ``--check`` fails if the files are out of step."""

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "embedkit" / "wire" / "proto"
# Folder of the sources, and where its modules go below the target.
PACKAGES = {"embedkit/v1": "", "inference": "inference/"}


def generate(out: Path) -> dict[str, str]:
    """Return the generated modules by path, with imports that suit the packages."""
    sources = sorted(
        path for package in PACKAGES for path in (ROOT / "proto" / package).glob("*.proto")
    )
    include = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{include}",
        *_googleapis(),
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(str(path) for path in sources),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    files = {}
    for package, place in PACKAGES.items():
        home = f"embedkit.wire.proto.{place}".replace("/", ".").rstrip(".")
        name = package.replace("/", ".")
        for path in sorted((out / package).iterdir()):
            text = path.read_text(encoding="utf-8")
            imports = rf"from {re.escape(name)} import"
            files[place + path.name] = re.sub(imports, f"from {home} import", text)
        files[f"{place}__init__.py"] = (
            f'"""Generated from proto/{package} by tools/gen_proto.py."""\n'
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
    for name, text in files.items():
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
