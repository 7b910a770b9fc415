"""Paths become splits and classes: the one rule for folders and archives.

``cat/1.jpg`` is of the class ``cat``; ``1.jpg`` has no label; ``train/cat/1.jpg`` is of the
class ``cat`` in the split ``train`` where every top folder is a split. A folder that alone
holds several folders and no image is no class: ``photos/cat/1.jpg`` beside
``photos/dog/2.jpg`` is ``cat``. A few files beside the class folders are left out; more are an
error.
"""

import mimetypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedkit.data.dataset import Skipped
from embedkit.data.labels import class_order
from embedkit.errors import InvalidInput

__all__ = ["Layout", "is_hidden", "lay_out"]

_SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})

_LOOSE_SHARE = 0.05
"""Share of the images that may lie beside the class folders; one may in any case."""


@dataclass(frozen=True)
class Layout:
    """Which files belong to the data set, and to which class.

    Attributes:
        members: Path and class name (None in a flat folder) of each file, by class and path.
        class_names: Every class, of all splits, in order.
        outside: Files beside the class folders; few of them are images.
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
        InvalidInput: If the split does not exist, or images lie beside the class folders.
    """
    parts = [tuple(path.split("/")) for path in sorted(paths) if not is_hidden(path)]
    base = _unwrapped(parts, 0)
    tops = {path[base] for path in parts if len(path) > base + 1}
    if split is not None and any(len(path) > 1 and path[0] == split for path in parts):
        base, tops = 0, {path[0] for path in parts if len(path) > 1}
    has_splits = "train" in tops and tops <= _SPLITS
    if split is None and has_splits:
        split = "train"
    if split is None:
        return _by_class(parts, parts, base, source)
    if split not in tops:
        found = ", ".join(sorted(tops)) or "none"
        raise InvalidInput(f"expected a folder {split!r} in {source}, got the folders {found}")
    siblings = [
        path for path in parts if len(path) > base + 1 and (has_splits or path[base] == split)
    ]
    chosen = [path for path in siblings if path[base] == split]
    return _by_class(chosen, siblings, _unwrapped(siblings, base + 1), source)


def _unwrapped(parts: Sequence[tuple[str, ...]], depth: int) -> int:
    """Where several folders lie, if each folder above them is alone and holds no image."""
    images = [path for path in parts if _may_be_image(path[-1])]
    for deeper in range(depth, min(map(len, images), default=0) - 1):
        if len({path[deeper] for path in images}) > 1:
            return deeper
        if images[0][deeper] in _SPLITS:
            break
    return depth


def _by_class(
    parts: Sequence[tuple[str, ...]],
    siblings: Sequence[tuple[str, ...]],
    depth: int,
    source: str,
) -> Layout:
    """Classes are the folders at ``depth``; without any the source is flat."""
    classes = class_order(path[depth] for path in siblings if len(path) > depth + 1)
    if not classes:
        return Layout(tuple(("/".join(path), None) for path in parts), (), ())
    members = [path for path in parts if len(path) > depth + 1]
    outside = [path for path in parts if len(path) <= depth + 1]
    _check_loose(outside, members, classes, source)
    rank = {name: index for index, name in enumerate(classes)}
    members.sort(key=lambda path: (rank[path[depth]], path))
    reason = "expected every image in a class folder, got a file beside them"
    return Layout(
        tuple(("/".join(path), path[depth]) for path in members),
        classes,
        tuple(Skipped("/".join(path), reason) for path in outside),
    )


def _check_loose(
    outside: Sequence[tuple[str, ...]],
    members: Sequence[tuple[str, ...]],
    classes: Sequence[str],
    source: str,
) -> None:
    """Refuse class folders that would cost more than a few images."""
    loose = [path for path in outside if _may_be_image(path[-1])]
    if len(loose) <= max(1, _LOOSE_SHARE * (len(loose) + len(members))):
        return
    named = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    raise InvalidInput(
        f"expected every image of {source} in a class folder, or none, got {len(loose):,} "
        f"files such as {'/'.join(loose[0])!r} beside the class folders ({named}), which hold "
        f"{len(members):,}; move the files into class folders or the folders away, or name one "
        f"folder, DATA:{classes[0]}"
    )


def _may_be_image(name: str) -> bool:
    """False where the suffix says that it is something else, such as ``labels.csv``."""
    kind = mimetypes.guess_type(name)[0]
    return kind is None or kind.startswith("image/")
