"""Array files: equal arrays give equal bytes, and reading them runs no code."""

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.bundle import Head, pack_arrays, unpack_arrays
from embedkit.errors import BundleDamaged, InvalidInput


class Bomb:
    """Pickled by reference to a call: reading it would run the call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise RuntimeError('code ran')",)


def npz(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "bool", "<U5", "float64"])
def test_arrays_come_back_as_they_were(rng: np.random.Generator, dtype: str) -> None:
    given_arrays = {
        "full": rng.integers(0, 2, (3, 4)).astype(dtype),
        "empty": np.zeros((0, 4), dtype),
        "scalar": np.zeros((), dtype),
        "fortran": np.asfortranarray(rng.integers(0, 2, (3, 4)).astype(dtype)),
    }
    read = unpack_arrays(pack_arrays(given_arrays))
    assert list(read) == list(given_arrays)
    for name, array in given_arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_equal_arrays_give_equal_bytes(rng: np.random.Generator) -> None:
    array = rng.standard_normal((4, 4))
    assert pack_arrays({"a": array}) == pack_arrays({"a": array.copy()})


def test_objects_are_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        pack_arrays({"a": np.array([Bomb()])})
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(BundleDamaged):
        unpack_arrays(npz({"a.npy": buffer.getvalue()}))
    with pytest.raises(BundleDamaged):
        unpack_arrays(npz({"a.npy": pickle.dumps(Bomb())}))
    with pytest.raises(BundleDamaged):
        unpack_arrays(pickle.dumps(Bomb()))


def test_a_header_that_declares_more_than_there_is_allocates_nothing() -> None:
    honest = npy(np.zeros((1000,), np.uint8))
    lie = honest.replace(b"(1000,)", b"(10**9,)"[:7])
    huge = honest.replace(b"'shape': (1000,), ", b"'shape': (9999999999999,), ", 1)
    for data in (lie, huge, honest[:-1], honest + b"\0"):
        with pytest.raises(BundleDamaged):
            unpack_arrays(npz({"a.npy": data}))


def test_compressed_entries_are_refused() -> None:
    bomb = npz({"a.npy": npy(np.zeros(1_000_000, np.uint8))}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10_000
    with pytest.raises(BundleDamaged, match="compressed"):
        unpack_arrays(bomb)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleDamaged):
        unpack_arrays(data)


def test_head_round_trip_and_its_logits(rng: np.random.Generator) -> None:
    head = Head(
        rng.standard_normal((3, 4)).astype(np.float32),
        rng.standard_normal(3).astype(np.float32),
        ("ant", "bee", "Käfer"),
    )
    read = Head.from_arrays(unpack_arrays(head.to_bytes()))
    assert read.class_names == head.class_names
    assert read.data_digest == ""
    known = replace(head, data_digest="sha256:1")
    assert Head.from_arrays(unpack_arrays(known.to_bytes())).data_digest == "sha256:1"
    features = rng.standard_normal((5, 4)).astype(np.float32)
    expected = [
        [w @ f + b for w, b in zip(head.weight, head.bias, strict=True)] for f in features
    ]
    np.testing.assert_allclose(read.logits(features), expected, rtol=1e-5)
    assert read.logits(features).dtype == np.float32


@pytest.mark.parametrize(
    ("weight", "bias", "names"),
    [((3, 4), (3,), 2), ((3, 4), (4,), 3), ((4,), (3,), 3), ((3, 4), (3, 1), 3)],
)
def test_a_head_of_misfitting_shapes_is_refused(weight, bias, names) -> None:
    with pytest.raises(InvalidInput, match="expected weight"):
        Head(np.zeros(weight, np.float32), np.zeros(bias, np.float32), ("x",) * names)
