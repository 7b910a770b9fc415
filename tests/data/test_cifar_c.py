import pickle

import numpy as np
import pytest

from embedkit.data.source import load_dataset
from embedkit.errors import InvalidInput, NotFound

N = 4


@pytest.fixture
def folder(tmp_path, rng):
    """Two corruptions of four images at five severities."""
    path = tmp_path / "CIFAR-10-C"
    path.mkdir()
    for name in ("fog", "gaussian_noise"):
        np.save(path / f"{name}.npy", rng.integers(0, 256, (5 * N, 32, 32, 3), dtype=np.uint8))
    np.save(path / "labels.npy", np.tile(np.array([3, 9, 0, 1], np.uint8), 5))
    return path


def test_one_severity_of_one_corruption(folder):
    found = load_dataset(f"cifar10c:{folder}:fog/3")
    np.testing.assert_array_equal(found.images, np.load(folder / "fog.npy")[2 * N : 3 * N])
    assert found.labels.tolist() == [3, 9, 0, 1]
    assert [found.class_names[c] for c in found.labels][:2] == ["cat", "truck"]
    assert found.name == "CIFAR-10-C_fog_3"
    assert found.ids == ("fog/3/0", "fog/3/1", "fog/3/2", "fog/3/3")


def test_all_severities_of_one_corruption(folder):
    found = load_dataset(f"cifar10c:{folder}:gaussian_noise")
    np.testing.assert_array_equal(found.images, np.load(folder / "gaussian_noise.npy"))
    assert found.name == "CIFAR-10-C_gaussian_noise"
    assert found.ids[N] == "gaussian_noise/2/0"


def test_other_numbers_of_classes_are_numbered(folder):
    np.save(folder / "labels.npy", np.tile(np.array([3, 99, 0, 1]), 5))
    assert load_dataset(f"cifar10c:{folder}:fog/1").class_names[99] == "99"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", r"one of its splits after a colon of .*, got the splits fog, gaussian_noise"),
        (":fg", "a split 'fg' of .*, got the splits fog, gaussian_noise"),
        (":fog/6", "a severity from 1 to 5 such as fog/3, got 'fog/6'"),
        (":fog/x", "a severity from 1 to 5"),
    ],
)
def test_a_wrong_split_is_an_error_that_names_the_right_ones(folder, split, message):
    with pytest.raises(InvalidInput, match=message):
        load_dataset(f"cifar10c:{folder}{split}")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match=r"expected a folder after cifar10c:.*nowhere:fog"):
        load_dataset(f"cifar10c:{tmp_path}/nowhere:fog/3")


def test_what_is_no_such_set(folder, tmp_path):
    np.save(folder / "fog.npy", np.zeros((7, 32, 32, 3), np.uint8))
    with pytest.raises(
        InvalidInput, match=r"5 severities in a row.*got uint8 \(7, 32, 32, 3\)"
    ):
        load_dataset(f"cifar10c:{folder}:fog")
    np.save(folder / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8))
    with pytest.raises(InvalidInput, match="one label for each of the 10 images"):
        load_dataset(f"cifar10c:{folder}:fog")
    (folder / "labels.npy").unlink()
    with pytest.raises(InvalidInput, match=r"labels.npy and a .npy file per corruption"):
        load_dataset(f"cifar10c:{folder}:fog")


def test_a_pickle_is_never_read(folder):
    np.save(folder / "fog.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"expected a plain numpy array in .*fog"):
        load_dataset(f"cifar10c:{folder}:fog")
    (folder / "fog.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(InvalidInput, match=r"expected a plain numpy array in .*fog"):
        load_dataset(f"cifar10c:{folder}:fog")
