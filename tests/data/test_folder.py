import os

import numpy as np
import pytest

import embedkit.data.folder as folder_module
from embedkit.data.folder import load_folder
from embedkit.errors import InvalidInput


def test_class_folders(tree, levels):
    dataset = load_folder(tree("dog/1.png", "cat/2.png", "cat/1.png"))
    assert dataset.name == "photos"
    assert dataset.ids == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert levels(dataset) == [2, 1, 0]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.class_names == ("cat", "dog")


def test_a_flat_folder_has_no_labels(tree, levels):
    dataset = load_folder(tree("b.png", "a.png"))
    assert dataset.ids == ("a.png", "b.png")
    assert levels(dataset) == [1, 0]
    assert dataset.labels is None


def test_files_are_kept_as_they_are(tree):
    root = tree("a.png")
    assert load_folder(root).images == ((root / "a.png").read_bytes(),)


def test_a_split_of_a_folder(tree, levels):
    root = tree("train/cat/1.png", "train/dog/2.png", "test/dog/3.png")
    assert levels(load_folder(root)) == [0, 1]
    test = load_folder(root, "test")
    assert (levels(test), test.labels.tolist()) == ([2], [1])
    assert test.name == "photos"


def test_the_order_does_not_depend_on_when_files_were_made(tmp_path, picture):
    names = [f"{number:02d}.png" for number in range(20)]
    for count, order in enumerate((names, names[::-1])):
        folder = tmp_path / str(count) / "set"
        folder.mkdir(parents=True)
        for name in order:
            (folder / name).write_bytes(picture(int(name[:2])))
    first, second = (load_folder(tmp_path / str(count) / "set") for count in (0, 1))
    assert first.ids == second.ids == tuple(names)
    assert first.digest == second.digest


def test_bad_files_are_left_out_and_named(tree, levels):
    root = tree("cat/1.png", "dog/2.png", "cover.png")
    (root / "dog/3.png").write_bytes(b"")
    (root / "cat/.hidden").write_bytes(b"not counted")
    dataset = load_folder(root)
    assert levels(dataset) == [0, 1]
    assert {item.id for item in dataset.skipped} == {"dog/3.png", "cover.png"}
    with pytest.raises(InvalidInput, match="expected 4 readable images in photos, got 2"):
        load_folder(root, strict=True)


def test_a_pipe_does_not_block(tree):
    root = tree("1.png")
    os.mkfifo(root / "pipe.png")
    dataset = load_folder(root)
    assert dataset.ids == ("1.png",)
    assert "got a pipe, socket or device" in dataset.skipped[0].reason


def test_a_broken_link_is_left_out(tree):
    root = tree("1.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    assert [item.id for item in load_folder(root).skipped] == ["gone.png"]


def test_an_enormous_file_is_not_read(tree, monkeypatch):
    root = tree("1.png")
    monkeypatch.setattr(folder_module, "MAX_FILE_BYTES", 1000)
    with (root / "huge.png").open("wb") as stream:
        stream.truncate(1001)
    (item,) = load_folder(root).skipped
    assert item.reason == "expected an image file of at most 1,000 bytes, got 1,001"


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(
        InvalidInput, match=r"expected image files in the folder .* got no files"
    ):
        load_folder(tmp_path)


def test_a_folder_of_other_files_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("buy milk")
    with pytest.raises(InvalidInput, match=r"got none of 1 files \(notes.txt: expected a JPEG"):
        load_folder(tmp_path)


def test_the_name_is_that_of_the_folder_wherever_one_stands(tree, monkeypatch):
    monkeypatch.chdir(tree("1.png"))
    assert load_folder(folder_module.Path(".")).name == "photos"


def test_real_photographs_in_class_folders(test_data, tmp_path):
    import zipfile

    with zipfile.ZipFile(test_data / "caltech101_subset.zip") as archive:
        names = [
            name for name in archive.namelist() if "/Faces" in name or "/accordion" in name
        ]
        archive.extractall(tmp_path, names)
    dataset = load_folder(tmp_path / "images", strict=True)
    assert dataset.class_names == ("Faces", "Faces_easy", "accordion")
    assert np.bincount(dataset.labels).tolist() == [10, 10, 10]
