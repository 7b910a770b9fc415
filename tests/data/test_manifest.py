import pytest

from embedkit.data.manifest import load_manifest
from embedkit.errors import InvalidInput


@pytest.fixture
def manifest(tree):
    """Return ``manifest(text)``: a CSV beside four pictures."""
    root = tree("a.png", "b.png", "deep/c.png", "d.png")

    def make(text: str):
        path = root / "list.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_paths_and_labels(manifest, levels):
    dataset = load_manifest(manifest("path,label\ndeep/c.png,dog\na.png,cat\n"))
    assert levels(dataset) == [2, 0]
    assert dataset.ids == ("deep/c.png", "a.png")
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.name == "list"


def test_paths_alone(manifest):
    dataset = load_manifest(manifest("path\na.png\n"))
    assert dataset.labels is None


def test_other_columns_quotes_a_byte_order_mark_and_file_for_path(manifest):
    text = '\ufeffsize,file,label\n12,"a.png","a ""good"", cat"\n7,b.png,dog\n'
    assert load_manifest(manifest(text)).class_names == ('a "good", cat', "dog")


def test_absolute_paths(manifest, tmp_path):
    file = tmp_path / "photos" / "b.png"
    assert load_manifest(manifest(f"path\n{file}\n")).ids == (str(file),)


SPLIT = "path,label,split\na.png,cat,train\nb.png,dog,test\nd.png,emu,test\n"


def test_the_split_column(manifest):
    path = manifest(SPLIT)
    assert load_manifest(path).ids == ("a.png",)
    test = load_manifest(path, "test")
    assert test.ids == ("b.png", "d.png")
    assert test.class_names == ("cat", "dog", "emu")
    assert test.labels.tolist() == [1, 2]


def test_groups_are_all_read_unless_one_is_asked_for(manifest):
    path = manifest("path,label,group\na.png,cat,photo\nb.png,dog,sketch\nd.png,cat,\n")
    assert load_manifest(path).ids == ("a.png", "b.png", "d.png")
    assert load_manifest(path, "sketch").ids == ("b.png",)


def test_missing_files_are_left_out_and_named(manifest):
    dataset = load_manifest(manifest("path\na.png\ngone.png\n"))
    assert dataset.ids == ("a.png",)
    assert "No such file" in dataset.skipped[0].reason
    with pytest.raises(InvalidInput, match="expected 2 readable images"):
        load_manifest(manifest("path\na.png\ngone.png\n"), strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with 'path' .* got ''"),
        ("image,class\na.png,cat\n", "got 'image,class'"),
        ("path,label\n", "expected at least one row below the header"),
        ("path,label\na.png,\n", "in row 2 of .*, got an empty value: 'a.png', ''"),
        ("path,label\na.png\n", "got an empty value: 'a.png', ''"),
        ("path,label\n,cat\n", "got an empty value: '', 'cat'"),
        ("path,label\na\0.png,cat\n", r"got a path with a NUL: 'a\\x00.png', 'cat'"),
        ("path\na.png\nb.png\na.png\n", "in row 4 of .*, got the path again: 'a.png'"),
        ('path\n"a.png" b\n', "expected CSV in .*, got"),
    ],
)
def test_what_is_no_manifest_is_refused(manifest, text, message):
    with pytest.raises(InvalidInput, match=message):
        load_manifest(manifest(text))


def test_a_missing_split_is_refused(manifest):
    with pytest.raises(InvalidInput, match=r"a split 'val' of .*, got the splits train, test"):
        load_manifest(manifest(SPLIT), "val")
    with pytest.raises(InvalidInput, match=r"got the splits \(none\)"):
        load_manifest(manifest("path\na.png\n"), "val")


def test_text_in_another_encoding_is_refused(manifest):
    path = manifest("path\n")
    path.write_bytes(b"path\n\xff\xfe.png\n")
    with pytest.raises(InvalidInput, match="expected UTF-8 text"):
        load_manifest(path)
