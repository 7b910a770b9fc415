"""Parquet: columns ``id vector payload sequence``; the collection in the file's metadata."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.data.records.header import (
    payload_of,
    read_header,
    written_header,
    written_payload,
)
from embedkit.errors import InvalidInput
from embedkit.types import Collection, Record

__all__ = ["read_parquet", "write_parquet"]

_KEY = b"embedkit.collection"
_ROWS = 8192
_READ_ROWS = 1024


def write_parquet(path: Path, collection: Collection, records: Iterable[Record]) -> int:
    """Write records and return their number; see ``write_records``."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32(), collection.dim)),
            ("payload", pyarrow.string()),
            ("sequence", pyarrow.uint64()),
        ],
        metadata={_KEY: json.dumps(written_header(collection))},
    )
    count, rows = 0, iter(records)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(rows, _ROWS)):
            values = np.array([r.vector for r in part], np.float32).reshape(-1)
            vectors = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(values), collection.dim
            )
            columns = [
                pyarrow.array([r.id for r in part], pyarrow.string()),
                vectors,
                pyarrow.array([written_payload(r.payload) or None for r in part], "string"),
                pyarrow.array([r.sequence for r in part], pyarrow.uint64()),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            count += len(part)
    return count


@contextmanager
def read_parquet(path: Path) -> Iterator[tuple[Collection, Iterator[Record]]]:
    """Open a file; see ``read_records``."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            header = json.loads((schema.metadata or {}).get(_KEY, b"null"))
            collection = read_header(header)
            _check(schema, collection, path)
            yield collection, _records(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInput(f"expected a Parquet file in {path}, got {error}") from error


def _check(schema: Any, collection: Collection, path: Path) -> None:  # noqa: ANN401
    import pyarrow

    expected = {
        "id": pyarrow.string(),
        "vector": pyarrow.list_(pyarrow.float32(), collection.dim),
        "payload": pyarrow.string(),
        "sequence": pyarrow.uint64(),
    }
    for name, kind in expected.items():
        got = schema.field(name).type if name in schema.names else "no such column"
        if got != kind:
            raise InvalidInput(f"expected {name} of type {kind} in {path}, got {got}")


def _records(file: Any) -> Iterator[Record]:  # noqa: ANN401
    place = 0
    for batch in file.iter_batches(_READ_ROWS):
        # Not ``values``: a slice of a fixed-size list would give all of its parent's.
        vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
        rows = vectors.reshape(batch.num_rows, -1)
        texts = (batch.column(name).to_pylist() for name in ("id", "payload", "sequence"))
        for vector, id_, payload, sequence in zip(rows, *texts, strict=True):
            if id_ is None:
                raise InvalidInput(f"expected an id in record {place}, got none")
            yield Record(id_, vector, payload_of(payload or "", place), sequence or 0)
            place += 1
