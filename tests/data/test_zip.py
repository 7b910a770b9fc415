import io
import zipfile

import numpy as np
import pytest
from PIL import Image

import embedkit.data.zip as zip_module
from embedkit.data.zip import load_zip
from embedkit.errors import InvalidInput


@pytest.fixture
def archive(tmp_path, picture):
    """Return ``archive(*paths, **extra)``: a zip with a picture at each path."""

    def make(*paths: str, more: dict[str, bytes] | None = None):
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as file:
            for level, name in enumerate(paths):
                file.writestr(name, picture(level))
            for name, data in (more or {}).items():
                file.writestr(name, data)
        return path

    return make


def test_class_folders(archive, levels):
    dataset = load_zip(archive("dog/1.png", "cat/1.png"))
    assert levels(dataset) == [1, 0]
    assert dataset.ids == ("cat/1.png", "dog/1.png")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.name == "photos"


def test_one_folder_around_everything_is_ignored(archive):
    more = {"__MACOSX/photos/cat/._1.png": b"", "photos/.DS_Store": b""}
    dataset = load_zip(archive("photos/cat/1.png", "photos/dog/1.png", more=more), strict=True)
    assert dataset.ids == ("cat/1.png", "dog/1.png")


def test_a_single_class_stays_a_class(archive):
    assert load_zip(archive("cat/1.png", "cat/2.png")).class_names == ("cat",)


def test_a_flat_archive_has_no_labels(archive):
    dataset = load_zip(archive("b.png", "a.png"))
    assert (dataset.ids, dataset.labels) == (("a.png", "b.png"), None)


def test_splits(archive, levels):
    path = archive("train/cat/1.png", "test/cat/2.png")
    assert levels(load_zip(path)) == [0]
    assert levels(load_zip(path, "test")) == [1]


def test_the_same_files_as_a_folder_have_the_same_digest(archive, tree):
    from embedkit.data.folder import load_folder

    paths = ("dog/1.png", "cat/2.png", "cat/1.png")
    assert load_zip(archive(*paths)).digest == load_folder(tree(*paths)).digest


def test_a_manifest_decides_labels_and_order(archive):
    text = b"file,label,group\nx/2.png,dog,b\nx/1.png,cat,a\n"
    path = archive("x/1.png", "x/2.png", "x/unused.png", more={"labels.csv": text})
    dataset = load_zip(path)
    assert dataset.ids == ("x/2.png", "x/1.png")
    assert dataset.labels.tolist() == [1, 0]
    assert load_zip(path, "a").ids == ("x/1.png",)


def test_a_manifest_that_names_a_missing_file(archive):
    path = archive("1.png", more={"labels.csv": b"path\n1.png\ngone.png\n"})
    dataset = load_zip(path)
    assert [item.id for item in dataset.skipped] == ["gone.png"]
    assert "no such file" in dataset.skipped[0].reason


def test_bad_members_are_left_out_and_named(archive, picture):
    more = {"cat/cut.png": picture(1)[:-40], "cover.txt": b"hello"}
    path = archive("cat/1.png", more=more)
    dataset = load_zip(path)
    assert {item.id for item in dataset.skipped} == {"cat/cut.png", "cover.txt"}
    with pytest.raises(InvalidInput, match="expected 3 readable images"):
        load_zip(path, strict=True)


@pytest.mark.parametrize("name", ["../evil.png", "cat/../../evil.png", "/etc/evil.png"])
def test_a_path_that_leaves_the_archive_is_left_out(archive, picture, name, tmp_path):
    dataset = load_zip(archive("cat/1.png", more={name: picture(9)}))
    assert dataset.ids == ("cat/1.png",)
    assert "got one that leaves it" in dataset.skipped[0].reason
    assert {file.name for file in tmp_path.rglob("*")} == {"photos.zip"}


def test_a_damaged_member_is_left_out(archive):
    path = archive("cat/1.png", "cat/2.png")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(data)
    (item,) = load_zip(path).skipped
    assert "CRC" in item.reason


def test_an_encrypted_member_is_left_out(archive):
    path = archive("cat/1.png", "cat/2.png")
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    (item,) = load_zip(path).skipped
    assert "encrypted" in item.reason


def test_an_unknown_compression_is_left_out(archive):
    path = archive("cat/1.png", "cat/2.png")
    data = bytearray(path.read_bytes())
    data[8:10] = b"\x63\0"
    at = data.index(b"PK\x01\x02") + 10
    data[at : at + 2] = b"\x63\0"
    path.write_bytes(data)
    (item,) = load_zip(path).skipped
    assert "compression" in item.reason


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(archive, monkeypatch):
    monkeypatch.setattr(zip_module, "MAX_FILE_BYTES", 1000)
    (item,) = load_zip(archive("1.png", more={"2.png": bytes(1001)})).skipped
    assert item.reason == "expected an image file of at most 1,000 bytes, got 1,001"


def test_an_archive_that_unpacks_to_too_much_is_refused(archive, monkeypatch):
    monkeypatch.setattr(zip_module, "MAX_ARCHIVE_BYTES", 5000)
    path = archive("1.png", more={"2.png": bytes(5000)})
    with pytest.raises(InvalidInput, match=r"at most 5,000 bytes .* declares 5,\d\d\d"):
        load_zip(path)


@pytest.mark.parametrize("data", [b"", b"no zip archive", b"PK\x03\x04 cut"])
def test_another_kind_of_file_is_refused(tmp_path, data):
    path = tmp_path / "photos.zip"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="expected a zip archive in"):
        load_zip(path)


def test_an_empty_archive_is_refused(archive):
    with pytest.raises(InvalidInput, match=r"expected image files in .*, got an empty archive"):
        load_zip(archive(more={"folder/": b"", ".DS_Store": b""}))


def test_real_photographs(test_data):
    dataset = load_zip(test_data / "caltech101_subset.zip", strict=True)
    assert len(dataset) == 1010
    assert len(dataset.class_names) == 101
    assert np.bincount(dataset.labels).tolist() == [10] * 101
    for data, label, name in zip(dataset.images, dataset.labels, dataset.ids, strict=True):
        assert name.split("/")[1] == dataset.class_names[label]
        assert data[:3] == b"\xff\xd8\xff"


def test_real_groups(test_data):
    sketches = load_zip(test_data / "pacs_subset.zip", "sketch")
    assert len(sketches) == 70
    assert len(load_zip(test_data / "pacs_subset.zip")) == 280
    assert np.asarray(Image.open(io.BytesIO(sketches.images[0]))).shape[:2] == (227, 227)
