"""Fail on files, functions and packages that have grown past the limits of the project.

Files: 400 lines hard, 250 soft (printed). Functions: 60 lines, and 35 at the 95th percentile.
Packages: 15 entries, except plural folders and the top level. README: 150 lines.
"""

import ast
import sys
from pathlib import Path

FILE_HARD, FILE_SOFT, FUNCTION_HARD, FUNCTION_P95, PACKAGE_ENTRIES = 400, 250, 60, 35, 15
README_LINES = 150
PLURAL = {
    "objectives",
    "augmentations",
    "detectors",
    "stores",
    "tasks",
    "attacks",
    "corruptions",
    "studies",
    "services",
    "proto",
}


def function_lengths(tree: ast.AST) -> list[tuple[str, int]]:
    """Name and length in lines, docstring not counted, of every function."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((node.name, length))
    return found


def check(root: Path) -> tuple[list[str], list[str]]:
    """Return (failures, notes) for a repository root."""
    failures, notes, lengths = [], [], []
    for path in sorted([*root.glob("embedkit/**/*.py"), *root.glob("tools/**/*.py")]):
        if "proto" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        lines, name = text.count("\n"), path.relative_to(root)
        if lines > FILE_HARD:
            failures.append(
                f"{name}: {lines} lines, limit {FILE_HARD}: split out a second idea"
            )
        elif lines > FILE_SOFT:
            notes.append(f"{name}: {lines} lines, soft limit {FILE_SOFT}")
        for function, length in function_lengths(ast.parse(text)):
            lengths.append(length)
            if length > FUNCTION_HARD:
                failures.append(f"{name}: {function} has {length} lines, limit {FUNCTION_HARD}")
    lengths.sort()
    if lengths and (p95 := lengths[int(0.95 * (len(lengths) - 1))]) > FUNCTION_P95:
        failures.append(f"95th percentile of function length is {p95}, limit {FUNCTION_P95}")
    failures += _packages(root)
    readme = root / "README.md"
    if readme.is_file() and (n := readme.read_text().count("\n")) > README_LINES:
        failures.append(f"README.md: {n} lines, limit {README_LINES}")
    return failures, notes


def singular(plural: str) -> str:
    """The name of the contract of a plural folder, e.g. study of studies."""
    return f"{plural[:-3]}y" if plural.endswith("ies") else plural[:-1]


def _packages(root: Path) -> list[str]:
    """Packages with too many entries."""
    failures = []
    for folder in sorted((root / "embedkit").rglob("*")):
        if not folder.is_dir() or folder.name in PLURAL | {"__pycache__"}:
            continue
        entries = [
            p
            for p in folder.iterdir()
            if not p.name.startswith("__")
            and (p.is_dir() or p.suffix == ".py")
            # A contract and the folder of its implementations are one noun.
            and not (p.name in PLURAL and p.with_name(f"{singular(p.name)}.py").is_file())
        ]
        if len(entries) > PACKAGE_ENTRIES:
            failures.append(
                f"{folder.relative_to(root)}: {len(entries)} entries, limit {PACKAGE_ENTRIES}"
            )
    return failures


def main() -> int:
    """Print what is too large; 1 if anything is over a hard limit."""
    failures, notes = check(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    for line in notes:
        print(f"note: {line}")
    for line in failures:
        print(f"too large: {line}")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
