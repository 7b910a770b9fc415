import io
import pickle

import numpy as np
import pytest
from PIL import Image

from embedkit.data.npz import load_npz
from embedkit.errors import InvalidInput


@pytest.fixture
def archive(tmp_path, rng):
    """Return ``archive(**arrays)``, the path of a ``.npz`` with defaults for both splits."""

    def make(**arrays):
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return path

    return make


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def end_to_end(files: list[bytes]) -> dict[str, np.ndarray]:
    return {
        "jpeg_test": np.frombuffer(b"".join(files), np.uint8),
        "offsets_test": np.cumsum([0, *(len(data) for data in files)]),
    }


def test_train_is_read_unless_another_split_is_asked_for(archive, images):
    path = archive(
        x_train=images,
        y_train=np.arange(6) % 3,
        x_test=images[:2, ::-1],
        y_test=np.array([2, 0]),
    )
    train, test = load_npz(path), load_npz(path, "test")
    np.testing.assert_array_equal(train.images, images)
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert train.ids[:2] == ("train/0", "train/1")
    assert (train.name, test.name) == ("set", "set")
    assert test.labels.tolist() == [2, 0]
    assert test.class_names == train.class_names == ("0", "1", "2")


def test_the_only_split_is_read(archive, images):
    assert load_npz(archive(x_test=images)).ids[0] == "test/0"


def test_images_and_labels_without_splits(archive, images):
    dataset = load_npz(archive(images=images, labels=np.arange(6, dtype=np.uint8)))
    assert dataset.ids == ("0", "1", "2", "3", "4", "5")
    assert dataset.labels.dtype == np.int64


def test_three_axes_mean_one_channel(archive, images):
    dataset = load_npz(archive(x_train=images[..., 0]))
    assert dataset.image_shape == (5, 4, 1)
    np.testing.assert_array_equal(dataset.images[..., 0], images[..., 0])


def test_without_labels_there_are_none(archive, images):
    dataset = load_npz(archive(x_train=images, x_test=images, y_test=np.zeros(6, int)))
    assert dataset.labels is None
    assert dataset.class_names == ()


def test_labels_may_be_a_column(archive, images):
    dataset = load_npz(archive(x_train=images, y_train=np.arange(6)[:, np.newaxis]))
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_classes_are_named_by_the_file(archive, images):
    path = archive(
        x_train=images, y_train=np.ones(6, int), classes=np.array(["cat", "dog", "emu"])
    )
    assert load_npz(path).class_names == ("cat", "dog", "emu")


def test_labels_may_be_names(archive, images):
    path = archive(
        x_train=images,
        y_train=np.array(list("bababa")),
        x_test=images,
        y_test=np.array(list("c" * 6)),
    )
    assert load_npz(path).labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert load_npz(path, "test").class_names == ("a", "b", "c")


def test_a_row_of_jpeg_files_stays_encoded(archive, picture):
    files = [picture(level, "JPEG") for level in (10, 20, 30)]
    path = archive(
        **end_to_end(files), y_test=np.array([1, 0, 1]), classes=np.array(["a", "b"])
    )
    dataset = load_npz(path)
    assert dataset.images == tuple(files)
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.class_names == ("a", "b")
    assert dataset.ids == ("test/0", "test/1", "test/2")


def test_a_damaged_file_of_a_row_is_left_out_with_its_label(archive, picture):
    files = [picture(10, "JPEG"), b"damaged", picture(30, "JPEG")]
    path = archive(**end_to_end(files), y_test=np.array([0, 1, 2]))
    dataset = load_npz(path)
    assert dataset.ids == ("test/0", "test/2")
    assert dataset.labels.tolist() == [0, 2]
    assert [item.id for item in dataset.skipped] == ["test/1"]
    with pytest.raises(InvalidInput, match="expected 3 readable images"):
        load_npz(path, strict=True)


X = np.zeros((2, 4, 4, 3), np.uint8)
ROW = end_to_end([b"1", b"22"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": X, "target": X}, "expected the keys x_train.*got data, target"),
        ({}, "got none"),
        ({"x_train": X.astype(np.float32)}, "x_train in .* as uint8 .* got float32"),
        ({"x_train": X.transpose(0, 3, 1, 2)}, r"with channels last, got \(2, 3, 4, 4\)"),
        ({"x_train": X[..., :2]}, r"got \(2, 4, 4, 2\)"),
        ({"x_train": X[0, 0]}, r"got \(4, 3\)"),
        ({"x_train": X[:0]}, r"at least one image, got \(0, 4, 4, 3\)"),
        ({"x_train": X, "y_train": np.zeros(3, int)}, "got 3 for 2 images"),
        ({"x_train": X, "y_train": np.zeros(2)}, "labels of y_train in .* float64"),
        ({"x_train": X, "y_train": np.array([0, -1])}, "got -1 to 0"),
        (
            {"x_train": X, "y_train": np.array([0, 2]), "classes": np.array(["a", "b"])},
            "from 0 to 1, for the 2 names in 'classes', got 2",
        ),
        (
            {"x_train": X, "y_train": np.array(["a", "c"]), "classes": np.array(["a", "b"])},
            "expected y_train in .* to be names in 'classes', got c",
        ),
        (
            {"x_train": X, "y_train": np.array([0, 1]), "classes": np.array(["a", "a"])},
            "a name of its own, got a more than once",
        ),
        ({"jpeg_test": ROW["jpeg_test"]}, "expected offsets_test beside jpeg_test"),
        ({**ROW, "offsets_test": np.array([0, 2, 1])}, "rising integers from 0 to 3"),
        ({**ROW, "offsets_test": np.array([0, 2, 4])}, "rising integers"),
        ({**ROW, "offsets_test": np.array([-1, 3])}, "rising integers"),
        ({**ROW, "offsets_test": np.array([0.0, 3.0])}, "got float64"),
        ({**ROW, "offsets_test": np.array([0])}, r"got int64 \(1,\)"),
        ({**ROW, "jpeg_test": np.zeros(3, np.int16)}, "jpeg_test in .* as uint8, got int16"),
        ({**ROW, "y_test": np.zeros(3, int)}, "got 3 for 2 images"),
        ({"x_train": np.array([X, None], dtype=object)}, "without pickles .* Object arrays"),
    ],
)
def test_what_is_no_image_archive_is_refused(archive, arrays, message):
    with pytest.raises(InvalidInput, match=message):
        load_npz(archive(**arrays))


def test_a_missing_split_is_refused(archive):
    with pytest.raises(InvalidInput, match=r"a split 'val' of .*, got the splits train"):
        load_npz(archive(x_train=X), "val")


def test_another_kind_of_file_is_refused_and_never_unpickled(tmp_path):
    path = tmp_path / "set.npz"
    np.save(path.with_suffix(".npy"), X)
    for data in (
        b"",
        b"text",
        pickle.dumps({"x_train": 1}),
        path.with_suffix(".npy").read_bytes(),
    ):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match=r"expected a .npz archive"):
            load_npz(path)


def test_a_damaged_archive_is_refused(archive, images):
    path = archive(x_train=images)
    data = bytearray(path.read_bytes())
    at = data.index(images[2].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="expected whole arrays"):
        load_npz(path)


def test_a_header_that_declares_an_enormous_array_is_refused(tmp_path):
    import zipfile

    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", stream.getvalue())
    with pytest.raises(InvalidInput, match="expected whole arrays"):
        load_npz(path)


@pytest.mark.parametrize(
    ("name", "split", "count", "shape", "classes"),
    [
        ("fashion_mnist.npz", None, 60_000, (28, 28, 1), "T-shirt/top"),
        ("kmnist_test.npz", None, 10_000, (28, 28, 1), "0"),
        ("notmnist_test.npz", "test", 10_000, (28, 28, 1), "A"),
    ],
)
def test_real_archives(test_data, name, split, count, shape, classes):
    dataset = load_npz(test_data / name, split)
    assert (len(dataset), dataset.image_shape) == (count, shape)
    assert dataset.class_names[0] == classes
    assert len(dataset.class_names) == 10


def test_a_real_row_of_jpeg_files(test_data):
    dataset = load_npz(test_data / "cifar10_test_jpeg75.npz", strict=True)
    assert len(dataset) == 10_000
    assert dataset.labels[:12].tolist() == [*range(10), 0, 1]
    pixels = np.asarray(Image.open(io.BytesIO(dataset.images[9])))
    assert pixels.shape == (32, 32, 3)
