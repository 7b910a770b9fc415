import gzip
import struct

import numpy as np
import pytest

from embedkit.data.idx import load_idx
from embedkit.errors import InvalidInput


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)


LABELS = np.array([3, 0, 1, 2, 3])


@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_images_and_labels(tmp_path, images, dash, packed):
    for prefix, count in (("train", 5), ("t10k", 2)):
        for name, data in (
            (f"{prefix}-images{dash}idx3-ubyte", idx(images[:count])),
            (f"{prefix}-labels{dash}idx1-ubyte", idx(LABELS[:count])),
        ):
            (tmp_path / (name + ".gz" * packed)).write_bytes(
                gzip.compress(data) if packed else data
            )
    train, test = load_idx(tmp_path), load_idx(tmp_path, "test")
    np.testing.assert_array_equal(train.images[..., 0], images)
    assert train.labels.tolist() == LABELS.tolist()
    assert train.class_names == ("0", "1", "2", "3")
    assert (len(test), test.ids) == (2, ("test/0", "test/1"))
    assert train.name == tmp_path.name


def test_the_test_split_has_the_class_names_of_train(tmp_path, images):
    for prefix, labels in (("train", LABELS), ("t10k", LABELS[1:3])):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images[: len(labels)]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    assert load_idx(tmp_path, "test").class_names == ("0", "1", "2", "3")


def test_labels_may_be_missing(tmp_path, images):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    dataset = load_idx(tmp_path)
    assert dataset.labels is None
    assert dataset.ids[0] == "test/0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an IDX file in"),
        (b"\0\0\x08\x03\0\0", "expected an IDX file in"),
        (idx(np.zeros((2, 3))), "2 axes"),
        (b"\0\0\x0d\x03" + idx(np.zeros((1, 1, 1)))[4:], "got type 0xd"),
        (idx(np.zeros((2, 3, 4)))[:-1], r"\(2, 3, 4\) declared and 23 bytes"),
        (idx(np.zeros((0, 3, 4))), r"\(0, 3, 4\) declared"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "declared and 0 bytes"),
    ],
)
def test_damaged_files_are_refused(tmp_path, data, message):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        load_idx(tmp_path)


def test_a_damaged_gzip_file_is_refused(tmp_path, images):
    data = gzip.compress(idx(images))
    for damaged in (data[:-12], b"nothing", data[:12] + b"\xff\xff" + data[14:]):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(damaged)
        with pytest.raises(InvalidInput, match="expected an IDX file in"):
            load_idx(tmp_path)


def test_a_gzip_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("embedkit.data.idx._MAX_BYTES", 1000)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(InvalidInput, match="more than 1,000 bytes"):
        load_idx(tmp_path)


def test_labels_that_do_not_match_are_refused(tmp_path, images):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:4]))
    with pytest.raises(InvalidInput, match="got 4 for 5 images"):
        load_idx(tmp_path)


def test_a_folder_without_such_files_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"expected train-images-idx3-ubyte .* got no files"):
        load_idx(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"got data\.bin"):
        load_idx(tmp_path)
    with pytest.raises(InvalidInput, match="got no files"):
        load_idx(tmp_path / "data.bin")
