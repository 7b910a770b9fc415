import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.tree import is_hidden, lay_out
from embedkit.errors import InvalidInput


def test_top_folders_are_classes():
    layout = lay_out(["dog/2.png", "cat/1.png", "cat/deep/3.png"], None, "x")
    assert layout.members == (
        ("cat/1.png", "cat"),
        ("cat/deep/3.png", "cat"),
        ("dog/2.png", "dog"),
    )
    assert layout.class_names == ("cat", "dog")


def test_without_folders_there_are_no_classes():
    layout = lay_out(["b.png", "a.png"], None, "x")
    assert layout.members == (("a.png", None), ("b.png", None))
    assert layout.class_names == ()


def test_files_beside_class_folders_are_outside():
    layout = lay_out(["cat/1.png", "cover.png"], None, "x")
    assert [item.id for item in layout.outside] == ["cover.png"]


def many(folder, count):
    return [f"{folder}{i}.png" for i in range(count)]


@pytest.mark.parametrize(("loose", "inside"), [(22, 1), (2, 1), (10, 100), (6, 94)])
def test_most_of_the_data_is_never_left_out(loose, inside):
    message = f"got {loose} files such as '0.png' beside the class folders (odd), which hold"
    with pytest.raises(InvalidInput, match=re.escape(message)):
        lay_out([*many("", loose), *many("odd/", inside)], None, "the folder x")


def test_a_few_files_and_notes_may_lie_beside_the_classes():
    notes = ["labels.csv", "README.md", "about.txt", "sizes.json"]
    layout = lay_out([*many("", 5), *many("cat/", 95), *notes], None, "x")
    assert len(layout.members) == 95
    assert len(layout.outside) == 9
    assert len(lay_out([*notes, "cat/1.png"], None, "x").members) == 1


def test_a_flat_split_beside_one_with_classes_is_refused():
    with pytest.raises(InvalidInput, match=r"got 9 files such as 'train/0\.png' beside"):
        lay_out([*many("train/", 9), "test/cat/1.png"], None, "x")


def test_notes_do_not_make_a_class_of_the_folder_beside_them():
    layout = lay_out(["README.md", "a/cat/1.png", "a/dog/2.png", "a/notes.txt"], None, "x")
    assert layout.class_names == ("cat", "dog")
    assert [item.id for item in layout.outside] == ["README.md", "a/notes.txt"]


@pytest.mark.parametrize("around", ["", "a/", "a/b/"])
def test_a_folder_around_the_classes_is_no_class(around):
    layout = lay_out([f"{around}cat/1.png", f"{around}dog/2.png"], None, "x")
    assert layout.members == ((f"{around}cat/1.png", "cat"), (f"{around}dog/2.png", "dog"))
    assert layout.class_names == ("cat", "dog")


def test_a_folder_around_splits_is_neither_class_nor_split():
    paths = [f"faces/{path}" for path in SPLITS if "/" in path]
    assert lay_out(paths, None, "x").members == (
        ("faces/train/cat/1.png", "cat"),
        ("faces/train/dog/2.png", "dog"),
    )
    assert lay_out(paths, "test", "x").class_names == ("cat", "dog", "emu")
    assert len(lay_out(paths, "faces", "x").members) == 4


def test_every_file_of_a_split_in_a_folder_is_found_without_the_other_split():
    paths = ["a/train/1.png", "a/test/2.png"]
    assert lay_out(paths, None, "x").members == (("a/train/1.png", None),)
    assert lay_out(paths, "test", "x").members == (("a/test/2.png", None),)


def test_a_folder_around_the_classes_of_a_split_is_no_class():
    paths = ["train/data/cat/1.png", "train/data/dog/2.png", "test/data/cat/3.png"]
    assert lay_out(paths, "test", "x").members == (("test/data/cat/3.png", "cat"),)


@pytest.mark.parametrize("paths", [["cat/1.png"], ["cat/deep/1.png"], ["cat/1.png", "cat/d/2"]])
def test_one_class_alone_keeps_its_name(paths):
    assert lay_out(paths, None, "x").class_names == ("cat",)


def test_numbered_classes_are_in_order_of_number():
    assert lay_out(["10/a.png", "9/a.png"], None, "x").class_names == ("9", "10")


SPLITS = ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/emu/4.png", "notes.txt"]


def test_train_is_the_split_where_every_top_folder_is_one():
    layout = lay_out(SPLITS, None, "x")
    assert layout.members == (("train/cat/1.png", "cat"), ("train/dog/2.png", "dog"))


def test_another_split_has_the_same_class_indices():
    layout = lay_out(SPLITS, "test", "x")
    assert layout.members == (("test/cat/3.png", "cat"), ("test/emu/4.png", "emu"))
    assert (
        layout.class_names == lay_out(SPLITS, "train", "x").class_names == ("cat", "dog", "emu")
    )


def test_a_split_may_be_flat():
    layout = lay_out(["train/1.png", "test/2.png"], "test", "x")
    assert layout.members == (("test/2.png", None),)


def test_files_beside_the_classes_of_a_split_are_outside():
    layout = lay_out(["train/cat/1.png", "train/cover.png"], None, "x")
    assert [item.id for item in layout.outside] == ["train/cover.png"]


def test_a_class_may_be_called_train_beside_others():
    layout = lay_out(["train/1.png", "car/2.png", "test/3.png"], None, "x")
    assert layout.class_names == ("car", "test", "train")


def test_any_top_folder_can_be_asked_for():
    layout = lay_out(["2023/cat/1.png", "2024/dog/2.png"], "2024", "x")
    assert layout.members == (("2024/dog/2.png", "dog"),)
    assert layout.class_names == ("dog",)


def test_a_missing_split_is_refused_with_the_folders_there_are():
    with pytest.raises(
        InvalidInput, match="expected a folder 'val' in x, got the folders test, tr"
    ):
        lay_out(SPLITS, "val", "x")
    with pytest.raises(InvalidInput, match="got the folders none"):
        lay_out(["1.png"], "val", "x")


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        "cat/.hidden.png",
        ".git/x",
        "__MACOSX/cat/1.png",
        "cat/Thumbs.db",
        "desktop.ini",
    ],
)
def test_what_systems_leave_behind_is_hidden(path):
    assert is_hidden(path)
    assert lay_out([path, "a.png"], None, "x").members == (("a.png", None),)


def test_ordinary_names_are_not_hidden():
    assert not is_hidden("cat/1.5.png")


@given(
    st.lists(
        st.lists(
            st.sampled_from(["a", "b", "train", "test", "1", "10"]), min_size=1, max_size=3
        ),
        min_size=1,
        max_size=8,
        unique_by=tuple,
    )
)
def test_every_file_is_a_member_or_outside_and_the_order_does_not_matter(paths):
    files = ["/".join(path) + ".png" for path in paths]
    try:
        layout = lay_out(files, None, "x")
    except InvalidInput:  # more than a few beside the classes
        return
    assert layout == lay_out(reversed(files), None, "x")
    found = [path for path, _ in layout.members] + [item.id for item in layout.outside]
    assert len(set(found)) == len(found)
    # Splits may lie in folders that are alone; only then is a part of the files not asked for.
    levels = [{path[depth] for path in paths if len(path) > depth + 1} for depth in range(2)]
    if not any("train" in names and names <= {"train", "test"} for names in levels):
        assert sorted(found) == sorted(files)
    assert {label for _, label in layout.members} <= {*layout.class_names, None}
