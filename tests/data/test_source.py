import zipfile

import numpy as np
import pytest

from embedkit.data.source import Dataset, align_labels, load_dataset
from embedkit.errors import InvalidInput, NotFound


def test_digits():
    assert len(load_dataset("digits")) == len(load_dataset("digits:train")) == 1297
    assert len(load_dataset("digits:test")) == 500


def test_a_folder_a_split_and_a_folder_that_is_one(tree):
    root = tree("train/cat/1.png", "test/cat/2.png", "test/dog/3.png")
    assert len(load_dataset(str(root))) == 1
    assert len(load_dataset(f"{root}:test")) == 2
    assert load_dataset(str(root / "test")).name == "test"


def test_files_by_their_suffix(tmp_path, tree):
    root = tree("a.png", "b.png")
    np.savez(tmp_path / "set.NPZ.npz", x_test=np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "set.NPZ.npz").rename(tmp_path / "set.NPZ")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(root / "a.png", "a.png")
    (root / "set.csv").write_text("path\na.png\n")
    assert len(load_dataset(str(tmp_path / "set.NPZ"))) == 3
    assert len(load_dataset(f"{tmp_path / 'set.NPZ'}:test")) == 3
    assert len(load_dataset(str(tmp_path / "set.zip"))) == 1
    assert load_dataset(str(root / "set.csv")).name == "set"


def test_idx_and_cifar_folders(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0\0\0\1" * 3 + b"\7")
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    assert load_dataset(f"idx:{tmp_path}").image_shape == (1, 1, 1)
    assert load_dataset(f"idx:{tmp_path}:test").image_shape == (1, 1, 1)
    assert load_dataset(f"cifar10:{tmp_path}:test").image_shape == (32, 32, 3)


def test_a_path_with_a_colon_is_a_path_first(tmp_path, tree):
    root = tree("a.png")
    odd = root.rename(tmp_path / "12:30")
    assert load_dataset(str(odd)).name == "12:30"


def test_strict_reaches_the_format(tree):
    root = tree("a.png")
    (root / "b.png").write_bytes(b"")
    assert len(load_dataset(str(root))) == 1
    with pytest.raises(InvalidInput, match="expected 2 readable images"):
        load_dataset(str(root), strict=True)


@pytest.mark.parametrize("text", ["nowhere", "nowhere.npz:test", "", ":", ":test"])
def test_a_missing_path_names_what_was_expected(text):
    with pytest.raises(
        NotFound, match=r"expected digits, a folder of images, FILE.npz, .* got"
    ):
        load_dataset(text)


def test_a_missing_folder_of_a_format_is_named_without_the_other_formats():
    with pytest.raises(NotFound, match=r"expected a folder after idx:.* got 'nowhere'"):
        load_dataset("idx:nowhere")


def test_a_near_name_is_suggested():
    with pytest.raises(NotFound, match="did you mean 'digits:test'"):
        load_dataset("digit:test")


def test_a_file_of_another_kind_is_named(tree):
    root = tree("a.png")
    with pytest.raises(InvalidInput, match=r"expected digits, .* got the file .*a\.png"):
        load_dataset(str(root / "a.png"))


def labelled(names: tuple[str, ...], labels: list[int]) -> Dataset:
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return Dataset("toy", images, np.array(labels, dtype=np.int64), names)


def test_labels_are_aligned_by_name():
    reference = labelled(("cat", "dog", "emu"), [0, 1, 2])
    other = labelled(("emu", "cat"), [0, 1, 1])
    aligned = align_labels(reference, other)
    assert aligned.labels.tolist() == [2, 0, 0]
    assert aligned.class_names == reference.class_names
    assert aligned.digest != other.digest


def test_labels_that_agree_are_left_alone():
    reference, other = labelled(("a", "b"), [0]), labelled(("a", "b"), [1, 1])
    assert align_labels(reference, other) is other


def test_a_class_without_images_may_be_unknown():
    aligned = align_labels(labelled(("a", "b"), [0]), labelled(("b", "z"), [0]))
    assert aligned.labels.tolist() == [1]


def test_an_unknown_class_is_refused_by_name():
    names = tuple("uvwxyz")
    with pytest.raises(InvalidInput, match=r"got u, v, w, x, y \.\.\. \(known: a, b\)"):
        align_labels(labelled(("a", "b"), [0]), labelled(names, list(range(6))))


def test_missing_labels_are_refused():
    bare = Dataset("bare", np.zeros((1, 2, 2, 1), np.uint8))
    for pair in ((bare, labelled(("a",), [0])), (labelled(("a",), [0]), bare)):
        with pytest.raises(InvalidInput, match="expected labels in bare, got images without"):
            align_labels(*pair)
