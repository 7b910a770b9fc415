"""What a collection was, beside its records."""

import json
from collections.abc import Mapping
from typing import get_args

from embedkit.errors import InvalidInput
from embedkit.types import Collection, CollectionLimits, Metric

__all__ = ["payload_of", "read_header", "written_header", "written_payload"]

_FIELDS: dict[str, type] = {
    "name": str,
    "dim": int,
    "metric": str,
    "kind": str,
    "storage": str,
    "model": str,
    "model_digest": str,
}
# Files of earlier versions have none.
_LIMITS = {"max_vectors": "vectors", "max_payload_bytes": "payload_bytes"}


def written_header(collection: Collection) -> dict[str, str | int]:
    """The collection without what is counted anew."""
    fields = {name: getattr(collection, name) for name in _FIELDS}
    return {**fields, **{key: getattr(collection.limits, n) for key, n in _LIMITS.items()}}


def read_header(value: object) -> Collection:
    """The collection that a header describes.

    Raises:
        InvalidInput: If a field is missing or of another type.
    """
    fields = value if isinstance(value, Mapping) else {}
    wrong = [n for n, kind in _FIELDS.items() if not isinstance(fields.get(n), kind)]
    if wrong or fields["metric"] not in get_args(Metric):
        raise InvalidInput(
            f"expected a collection's {', '.join(_FIELDS)} before its records, got others "
            f"({', '.join(wrong) or fields['metric']}); is it a file of embedkit index export?"
        )
    limits = {name: fields.get(key, 0) for key, name in _LIMITS.items()}
    if not all(isinstance(value, int) for value in limits.values()):
        raise InvalidInput(f"expected {', '.join(_LIMITS)} as numbers, got {limits}")
    return Collection(
        **{name: fields[name] for name in _FIELDS}, limits=CollectionLimits(**limits)
    )


def written_payload(payload: dict[str, object] | None) -> str:
    """JSON text, or none at all."""
    return "" if payload is None else json.dumps(payload, ensure_ascii=False)


def payload_of(text: str, place: int) -> dict[str, object] | None:
    """The payload of a record.

    Raises:
        InvalidInput: If it is no JSON object; names the record.
    """
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"expected a JSON object in record {place}, got {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"expected a JSON object in record {place}, got {text[:40]!r}")
    return value
