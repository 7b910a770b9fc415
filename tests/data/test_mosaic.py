import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from embedkit.data.zip import load_zip
from embedkit.errors import InvalidInput


def mosaic_of(images: np.ndarray) -> bytes:
    """A lossless picture with 40 images per row."""
    rows = []
    for start in range(0, len(images), 40):
        rows.append(np.concatenate(list(images[start : start + 40]), axis=1))
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(stream, "WEBP", lossless=True, exact=True)
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Return ``archive(members, **arrays)``: a zip of mosaics with ``labels.npz``."""

    def make(members: dict[str, bytes], **arrays):
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        path = tmp_path / "small.zip"
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
            file.writestr("labels.npz", stream.getvalue())
        return path

    return make


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (160, 6, 6, 3), dtype=np.uint8)


def test_tiles_are_read_in_order_of_rows_and_files(archive, images):
    members = {
        "train_01.webp": mosaic_of(images[80:120]),
        "train_00.webp": mosaic_of(images[:80]),
        "test_00.webp": mosaic_of(images[120:]),
    }
    labels = np.arange(160) % 4
    names = np.array(["a", "b", "c", "d"])
    path = archive(members, y_train=labels[:120], y_test=labels[120:], classes=names)
    train, test = load_zip(path), load_zip(path, "test")
    np.testing.assert_array_equal(train.images, images[:120])
    np.testing.assert_array_equal(test.images, images[120:])
    np.testing.assert_array_equal(train.labels, labels[:120])
    assert test.class_names == ("a", "b", "c", "d")
    assert (test.name, test.ids[0]) == ("small", "test/0")


def test_a_set_without_splits_or_names(archive, images):
    path = archive({"images_00.webp": mosaic_of(images[:40])}, y=np.arange(40) % 3)
    dataset = load_zip(path)
    assert len(dataset) == 40
    assert dataset.class_names == ("0", "1", "2")


def test_a_missing_split_is_refused(archive, images):
    path = archive({"images_00.webp": mosaic_of(images[:40])}, y=np.arange(40))
    with pytest.raises(InvalidInput, match="a split 'test' of small, got the splits images"):
        load_zip(path, "test")


def test_labels_that_do_not_match_the_tiles_are_refused(archive, images):
    members = {"train_00.webp": mosaic_of(images[:40])}
    with pytest.raises(
        InvalidInput, match=r"expected 40 labels of train in labels.npz .* got 39"
    ):
        load_zip(archive(members, y_train=np.arange(39)))
    with pytest.raises(InvalidInput, match=r"expected y_train or y in .* got labels"):
        load_zip(archive(members, labels=np.arange(40)))


@pytest.mark.parametrize("size", [(239, 6), (240, 7), (39, 6)])
def test_a_picture_that_is_no_mosaic_is_refused(archive, picture, size):
    path = archive({"train_00.webp": picture(1, "WEBP", size)}, y_train=np.arange(40))
    with pytest.raises(
        InvalidInput, match=r"expected 40 square tiles per row in train_00.webp"
    ):
        load_zip(path)


def test_damaged_members_are_refused(archive, images):
    path = archive({"train_00.webp": b"nothing"}, y_train=np.arange(40))
    with pytest.raises(InvalidInput, match=r"train_00\.webp.*expected a JPEG"):
        load_zip(path)


def test_labels_that_are_no_arrays_are_refused(tmp_path, images):
    path = tmp_path / "small.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train_00.webp", mosaic_of(images[:40]))
        file.writestr("labels.npz", b"nothing")
    with pytest.raises(InvalidInput, match=r"labels\.npz of small"):
        load_zip(path)


def test_real_mosaics(test_data):
    test = load_zip(test_data / "cifar10.zip", "test")
    assert (len(test), test.image_shape) == (10_000, (32, 32, 3))
    assert test.labels[:12].tolist() == [*range(10), 0, 1]
    with zipfile.ZipFile(test_data / "cifar10.zip") as archive:
        first = np.asarray(Image.open(io.BytesIO(archive.read("test_00.webp"))))
    np.testing.assert_array_equal(test.images[41], first[32:64, 32:64])


def test_real_mosaics_without_splits(test_data):
    dataset = load_zip(test_data / "cifar100_subset.zip")
    assert len(dataset) == 4000
    assert np.bincount(dataset.labels).tolist() == [40] * 100
    assert dataset.class_names[:2] == ("apple", "aquarium_fish")
