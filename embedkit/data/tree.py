"""Paths become splits and classes: the one rule for folders and archives.

``cat/1.jpg`` is of the class ``cat``; ``1.jpg`` has no label; ``train/cat/1.jpg`` is of the
class ``cat`` in the split ``train`` where every top folder is a split.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedkit.data.dataset import Skipped
from embedkit.data.labels import class_order
from embedkit.errors import InvalidInput

__all__ = ["Layout", "is_hidden", "lay_out"]

_SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


@dataclass(frozen=True)
class Layout:
    """Which files belong to the data set, and to which class.

    Attributes:
        members: Path and class name (None in a flat folder) of each file, by class and path.
        class_names: Every class, of all splits, in order.
        outside: Files beside the class folders.
    """

    members: tuple[tuple[str, str | None], ...]
    class_names: tuple[str, ...]
    outside: tuple[Skipped, ...]


def is_hidden(path: str) -> bool:
    """Whether a path has a part that systems add by themselves; such files are not counted."""
    return any(part.startswith(".") or part in _SYSTEM_FILES for part in path.split("/"))


def lay_out(paths: Iterable[str], split: str | None, source: str) -> Layout:
    """Assign each file to a class.

    Args:
        paths: Path of each file below the source, with ``/``; in any order.
        split: Name of a top folder, or None for ``train`` where there are splits, else all.
        source: What the paths belong to, for messages.

    Raises:
        InvalidInput: If the split does not exist, or there is no file at all.
    """
    parts = [tuple(path.split("/")) for path in sorted(paths) if not is_hidden(path)]
    tops = {path[0] for path in parts if len(path) > 1}
    has_splits = "train" in tops and tops <= _SPLITS
    if split is None and has_splits:
        split = "train"
    depth = 0 if split is None else 1
    if split is not None:
        if split not in tops:
            found = ", ".join(sorted(tops)) or "none"
            raise InvalidInput(
                f"expected a folder {split!r} in {source}, got the folders {found}"
            )
        siblings = [
            path for path in parts if len(path) > 1 and (has_splits or path[0] == split)
        ]
        parts = [path for path in siblings if path[0] == split]
    else:
        siblings = parts
    return _by_class(parts, siblings, depth)


def _by_class(
    parts: Sequence[tuple[str, ...]], siblings: Sequence[tuple[str, ...]], depth: int
) -> Layout:
    """Classes are the folders at ``depth``; without any the source is flat."""
    classes = class_order(path[depth] for path in siblings if len(path) > depth + 1)
    if not classes:
        return Layout(tuple(("/".join(path), None) for path in parts), (), ())
    members = [path for path in parts if len(path) > depth + 1]
    outside = [path for path in parts if len(path) == depth + 1]
    rank = {name: index for index, name in enumerate(classes)}
    members.sort(key=lambda path: (rank[path[depth]], path))
    reason = "expected every image in a class folder, got a file beside them"
    return Layout(
        tuple(("/".join(path), path[depth]) for path in members),
        classes,
        tuple(Skipped("/".join(path), reason) for path in outside),
    )
