"""The kinds of index and ways of storage by name, and which of them a collection gets."""

from collections.abc import Iterable
from difflib import get_close_matches

from embedkit.errors import InvalidInput
from embedkit.types import SearchParams

__all__ = ["KINDS", "STORAGES", "check_kind", "check_params", "check_storage", "kind_for"]

KINDS = ("auto", "flat", "ivf_flat", "hnsw", "sq8", "pq")
"""Every kind, the default first; ``auto`` becomes one of the others by size."""

STORAGES = ("float32", "float16", "int8")
"""Every way of storage, the default first."""

# Below, comparing every vector takes a millisecond or so and finds them all.
_FLAT_BYTES = 16 << 20
# Above, whole vectors in memory cost more than reading those found from the disk.
_WHOLE_BYTES = 1 << 30
_PROBING = ("auto", "ivf_flat", "sq8", "pq")


def check_kind(kind: str) -> None:
    """Refuse a name that is no kind.

    Raises:
        InvalidInput: With the kind that was probably meant.
    """
    _check("an index kind", kind, KINDS)


def check_storage(storage: str) -> None:
    """Refuse a name that is no way of storage.

    Raises:
        InvalidInput: With the one that was probably meant.
    """
    _check("a storage", storage, STORAGES)


def check_params(params: SearchParams, kind: str) -> None:
    """Refuse parameters out of range, or that the collection's kind does not have.

    Args:
        params: Of a request.
        kind: As the collection was made with, so that growth does not change what is allowed.

    Raises:
        InvalidInput: Says what to give in its place.
    """
    target = params.recall_target
    if target is not None and not 0 < target <= 1:
        raise InvalidInput(f"expected a recall_target above 0 and at most 1, got {target}")
    for name, value in (("nprobe", params.nprobe), ("ef", params.ef)):
        if value is not None and value < 1:
            raise InvalidInput(f"expected {name} of at least 1, got {value}")
    if params.nprobe is not None and kind not in _PROBING:
        raise InvalidInput(
            f"expected no nprobe for an index of kind {kind}, got {params.nprobe}; it is for "
            f"{', '.join(_PROBING)}: give recall_target"
        )
    if params.ef is not None and kind != "hnsw":
        raise InvalidInput(
            f"expected no ef for an index of kind {kind}, got {params.ef}; it is for hnsw: "
            "give recall_target"
        )


def kind_for(wanted: str, count: int, dim: int) -> str:
    """The kind of index that ``count`` vectors get; never ``auto``."""
    if wanted != "auto":
        return wanted
    if 4 * dim * count <= _FLAT_BYTES:
        return "flat"
    return "ivf_flat" if 4 * dim * count <= _WHOLE_BYTES else "sq8"


def _check(noun: str, name: str, known: Iterable[str]) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidInput(f"expected {noun} of {', '.join(known)}, got {name!r}{hint}")
