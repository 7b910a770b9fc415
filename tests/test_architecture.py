"""The structure of the project: public names, contracts, sizes, stubs and docs in step."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import embedkit

# One planted line per contract: the file it goes into, and the import that must not pass.
VIOLATIONS = {
    "Stages depend on one another in one direction": (
        "data/source.py",
        "import embedkit.train.recipe",
    ),
    "The serving side never needs PyTorch or the training side": (
        "serve/engine.py",
        "import torch",
    ),
    "Evaluation sees models only through the Embedder protocol": (
        "evaluate/task.py",
        "import grpc",
    ),
    "The shared vocabulary is light": ("types.py", "import torch"),
    "The batcher knows neither gRPC nor ONNX": ("serve/batcher.py", "import grpc"),
    "Only the CLI knows click": ("evaluate/report.py", "import click"),
    "Generated stubs stop at the service and the client": (
        "retrieve/store.py",
        "import embedkit.wire.proto.index_pb2",
    ),
    "No method imports another method": (
        "train/objectives/simclr.py",
        "import embedkit.train.objectives.vicreg",
    ),
    "No cycles among siblings anywhere": ("errors.py", "import embedkit.types"),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def planted_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with every violation planted at once."""
    root = Path(embedkit.__file__).parent
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(root, folder / "embedkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root.parent / "pyproject.toml", folder)
    for name, line in VIOLATIONS.values():
        path = folder / "embedkit" / name
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    return folder


def test_every_import_contract_fails_on_its_planted_violation(planted_copy: Path) -> None:
    result = lint_imports(planted_copy)
    assert result.returncode == 1
    for name in VIOLATIONS:
        assert f"{name} BROKEN" in result.stdout, f"{name} was kept:\n{result.stdout}"


def test_import_contracts_hold(repository: Path) -> None:
    result = lint_imports(repository)
    assert result.returncode == 0, result.stdout
    assert f"{len(VIOLATIONS)} kept, 0 broken" in result.stdout


def test_an_unlisted_top_level_module_breaks_the_layers(tmp_path: Path) -> None:
    root = Path(embedkit.__file__).parent
    shutil.copytree(root, tmp_path / "embedkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root.parent / "pyproject.toml", tmp_path)
    (tmp_path / "embedkit" / "helpers.py").write_text('"""A drawer."""\n')
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "embedkit.helpers" in result.stdout


def test_public_names_exist_and_are_all() -> None:
    assert embedkit.__all__ == sorted(embedkit.__all__)
    for name in embedkit.__all__:
        assert getattr(embedkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = embedkit.colour


def test_every_module_with_all_defines_what_it_lists(repository: Path) -> None:
    checked = 0
    for path in sorted((repository / "embedkit").rglob("*.py")):
        module = ".".join(path.relative_to(repository).with_suffix("").parts)
        if "proto" in path.parts or path.name in {"__init__.py", "__main__.py"}:
            continue
        listed = getattr(importlib.import_module(module), "__all__", ())
        missing = [
            name for name in listed if not hasattr(importlib.import_module(module), name)
        ]
        assert not missing, f"{module}: {missing}"
        checked += bool(listed)
    assert checked > 20


def run_tool(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_sizes_are_within_the_limits(repository: Path) -> None:
    result = run_tool(repository, "tools/check_sizes.py")
    assert result.returncode == 0, result.stdout


def test_size_check_fails_on_a_long_file_and_a_long_function(
    repository: Path, tmp_path: Path
) -> None:
    package = tmp_path / "embedkit"
    package.mkdir()
    body = "\n".join(f"    x{i} = {i}" for i in range(70))
    (package / "long.py").write_text(f"def grown():\n{body}\n" + "y = 0\n" * 400)
    result = run_tool(repository, "tools/check_sizes.py", str(tmp_path))
    assert result.returncode == 1
    assert "long.py: 471 lines" in result.stdout
    assert "grown has 71 lines" in result.stdout


@pytest.mark.parametrize("folder", ["tools", "tools/board"])
def test_size_check_looks_into_every_folder_of_the_tools(repository, tmp_path, folder) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "long.py").write_text("y = 0\n" * 401)
    result = run_tool(repository, "tools/check_sizes.py", str(tmp_path))
    assert f"{folder}/long.py: 401 lines" in result.stdout


def test_every_phony_target_of_the_makefile_has_a_rule(repository: Path) -> None:
    text = (repository / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


def test_clean_removes_what_the_benchmarks_write(repository: Path) -> None:
    command = ["make", "-n", "clean"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert "build/bench" in done.stdout.split()


def test_stubs_are_in_step_with_the_proto_files(repository: Path) -> None:
    result = run_tool(repository, "tools/gen_proto.py", "--check")
    assert result.returncode == 0, result.stdout


def test_docs_are_in_step_with_the_code(repository: Path) -> None:
    result = run_tool(repository, "tools/render_docs.py", "--check")
    assert result.returncode == 0, result.stdout
