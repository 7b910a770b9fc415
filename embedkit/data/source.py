"""One string names any collection of images: a folder, a file, or a built-in set."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedkit.data.cifar import load_cifar10, load_cifar_c
from embedkit.data.dataset import Dataset, Skipped
from embedkit.data.digits import load_digits_split
from embedkit.data.folder import load_folder
from embedkit.data.idx import load_idx
from embedkit.data.labels import index_labels
from embedkit.data.manifest import load_manifest
from embedkit.data.npz import load_npz
from embedkit.data.zip import load_zip
from embedkit.errors import InvalidInput, NotFound

__all__ = ["Dataset", "Skipped", "align_labels", "load_dataset", "path_and_split"]

_EXPECTED = (
    "digits, a folder of images, FILE.npz, FILE.zip, FILE.csv, idx:DIR, cifar10:DIR or "
    "cifar10c:DIR, each with :SPLIT after it where it has splits"
)
_FILES: dict[str, Callable[..., Dataset]] = {
    ".npz": load_npz,
    ".zip": load_zip,
    ".csv": load_manifest,
}
_FOLDERS: dict[str, Callable[[Path, str | None], Dataset]] = {
    "idx": load_idx,
    "cifar10": load_cifar10,
    "cifar10c": load_cifar_c,
}


def load_dataset(text: str, *, strict: bool = False) -> Dataset:
    """Load what a DATA string names.

    Args:
        text: ``digits``, a folder (class sub-folders or flat), ``FILE.npz``, ``FILE.zip``,
            ``FILE.csv``, ``idx:DIR``, ``cifar10:DIR`` or ``cifar10c:DIR``; ``:test`` after it
            chooses a split (``:fog/3`` a corruption and its severity), without one it is
            ``train`` or the only one.
        strict: Whether one unreadable image file is an error; else it is left out, logged as a
            warning and listed in ``Dataset.skipped``.

    Returns:
        Images as one array where the source has one, or as the encoded files they are.

    Raises:
        NotFound: If there is no such file or folder.
        InvalidInput: If it is something else; the message says what was found and expected.
        MissingDependency: If Pillow or scikit-learn is needed and not installed.

    Example:
        >>> load_dataset("digits:test").image_shape
        (8, 8, 1)
    """
    scheme, _, rest = text.partition(":")
    if scheme == "digits":
        return load_digits_split(rest or None)
    if scheme in _FOLDERS and rest:
        wanted = f"a folder after {scheme}:, with :SPLIT behind it where it has splits"
        folder, split = path_and_split(rest, wanted)
        return _FOLDERS[scheme](folder, split)
    path, split = path_and_split(text)
    if path.is_dir():
        return load_folder(path, split, strict=strict)
    loader = _FILES.get(path.suffix.lower())
    if loader is None:
        raise InvalidInput(f"expected {_EXPECTED}; got the file {path}")
    return loader(path, split, strict=strict)


def path_and_split(text: str, wanted: str = _EXPECTED) -> tuple[Path, str | None]:
    """An existing path, and what follows its last colon where the whole is no path itself.

    Args:
        text: What was given.
        wanted: What is expected of it, for the message.

    Raises:
        NotFound: If there is no such path.
    """
    whole = Path(text)
    if text and whole.exists():
        return whole, None
    head, colon, split = text.rpartition(":")
    if colon and head and split and Path(head).exists():
        return Path(head), split
    names = ("digits", "digits:train", "digits:test") if wanted == _EXPECTED else ()
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise NotFound(
        f"expected {wanted}; got {text!r}, which is no file or folder in {Path.cwd()}{hint}"
    )


def align_labels(reference: Dataset, other: Dataset) -> Dataset:
    """Give ``other`` the class indices of ``reference``, by class name.

    Args:
        reference: Labelled data set, usually the training set.
        other: Labelled data set, usually the test set.

    Returns:
        ``other`` with the class names of ``reference``; ``other`` itself where they agree.

    Raises:
        InvalidInput: If one has no labels, or ``other`` has images of a class that
            ``reference`` does not know.
    """
    for dataset in (reference, other):
        if dataset.labels is None:
            raise InvalidInput(f"expected labels in {dataset.name}, got images without labels")
    if reference.class_names == other.class_names or other.labels is None:
        return other
    names = [other.class_names[label] for label in other.labels]
    unknown = sorted(set(names) - set(reference.class_names))
    if unknown:
        raise InvalidInput(
            f"expected only classes of {reference.name} in {other.name}, got "
            f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''} "
            f"(known: {', '.join(reference.class_names[:10])})"
        )
    labels = index_labels(names, reference.class_names)
    return replace(other, labels=labels, class_names=reference.class_names, digest="")
