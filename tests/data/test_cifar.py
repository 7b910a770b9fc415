import numpy as np
import pytest

from embedkit.data.cifar import load_cifar10
from embedkit.errors import InvalidInput


def batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, np.newaxis].astype(np.uint8), planes], axis=1).tobytes()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


LABELS = np.arange(12) % 10


def write(folder, images):
    for number in range(5):
        part = slice(2 * number, 2 * number + 2)
        (folder / f"data_batch_{number + 1}.bin").write_bytes(batch(images[part], LABELS[part]))
    (folder / "test_batch.bin").write_bytes(batch(images[10:], LABELS[10:]))


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_the_binary_version(tmp_path, images, subfolder):
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    write(folder, images)
    train, test = load_cifar10(tmp_path), load_cifar10(tmp_path, "test")
    np.testing.assert_array_equal(train.images, images[:10])
    np.testing.assert_array_equal(test.images, images[10:])
    assert train.labels.tolist() == list(range(10))
    assert test.labels.tolist() == [0, 1]
    assert train.class_names[3] == "cat"
    assert train.name == "cifar10"


def test_the_pickled_version_is_refused_by_name(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"a pickle")
    with pytest.raises(InvalidInput, match="the Python version"):
        load_cifar10(tmp_path)


def test_missing_files_are_refused(tmp_path, images):
    write(tmp_path, images)
    (tmp_path / "data_batch_3.bin").unlink()
    assert len(load_cifar10(tmp_path)) == 2
    with pytest.raises(InvalidInput, match=r"a split 'train' of .*, got the splits test"):
        load_cifar10(tmp_path, "train")
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(InvalidInput, match="got no such files"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0" * 3072, b"\0" * 3074, b"\x0a" + b"\0" * 3072])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / "test_batch.bin").write_bytes(data)
    with pytest.raises(InvalidInput, match="expected records of 3,073 bytes"):
        load_cifar10(tmp_path)
