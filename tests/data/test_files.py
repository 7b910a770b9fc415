import logging

import pytest

from embedkit.data.dataset import Skipped
from embedkit.data.files import ImageFile, collect
from embedkit.errors import InvalidInput


def unreadable() -> bytes:
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def mixed(picture):
    """Three images, and five files that cannot be used."""
    png = picture(7)
    huge = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    return [
        ImageFile("a/1.png", "a", lambda: picture(1)),
        ImageFile("a/cut.png", "a", lambda: png[:-40]),
        ImageFile("a/empty.jpg", "a", lambda: b""),
        ImageFile("b/2.jpg", "b", lambda: picture(2, "JPEG")),
        ImageFile("b/notes.txt", "b", lambda: b"buy milk"),
        ImageFile("b/huge.png", "b", lambda: huge),
        ImageFile("c/locked.png", "c", unreadable),
        ImageFile("b/3.gif", "b", lambda: picture(3, "GIF")),
    ]


def test_what_cannot_be_used_is_left_out_with_its_reason(mixed, picture):
    dataset = collect("mixed", mixed)
    assert dataset.ids == ("a/1.png", "b/2.jpg", "b/3.gif")
    assert dataset.images == (picture(1), picture(2, "JPEG"), picture(3, "GIF"))
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.class_names == ("a", "b")
    reasons = {item.id: item.reason for item in dataset.skipped}
    assert list(reasons) == [
        "a/cut.png",
        "a/empty.jpg",
        "b/notes.txt",
        "b/huge.png",
        "c/locked.png",
    ]
    assert "end early" in reasons["a/cut.png"]
    assert "got 0 bytes" in reasons["a/empty.jpg"]
    assert "8 bytes that start with" in reasons["b/notes.txt"]
    assert "declares 60,000 x 60,000" in reasons["b/huge.png"]
    assert "Permission denied" in reasons["c/locked.png"]


def test_it_is_logged_once_with_the_count_and_names(mixed, caplog):
    with caplog.at_level(logging.WARNING, "embedkit.data"):
        collect("mixed", mixed, outside=(Skipped("README", "a reason"),))
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "mixed: left out 6 of 9 files (README: a reason; a/cut"
    )
    assert record.getMessage().endswith("and 1 more)")


def test_a_clean_set_logs_nothing(mixed, caplog):
    assert collect("clean", mixed[:1]).skipped == ()
    assert not caplog.records


def test_strict_makes_it_an_error_that_names_the_files(mixed):
    with pytest.raises(
        InvalidInput, match=r"expected 8 readable images in mixed, got 5 .*a/cut"
    ):
        collect("mixed", mixed, strict=True)


def test_strict_accepts_a_clean_set(mixed):
    assert len(collect("clean", mixed[:1], strict=True)) == 1


def test_nothing_readable_is_an_error(mixed):
    with pytest.raises(
        InvalidInput, match=r"at least one readable image in bad, got none of 2"
    ):
        collect("bad", mixed[1:3])


def test_no_files_at_all_is_an_error():
    with pytest.raises(
        InvalidInput, match=r"at least one readable image in none, got none of 0"
    ):
        collect("none", [])


def test_a_class_keeps_its_index_when_all_its_files_are_bad(mixed):
    dataset = collect("mixed", mixed, class_names=("a", "c", "b"))
    assert dataset.labels.tolist() == [0, 2, 2]
    assert dataset.class_names == ("a", "c", "b")


def test_files_without_labels_give_a_set_without_labels(picture):
    dataset = collect("flat", [ImageFile("1.png", None, lambda: picture(1))])
    assert dataset.labels is None
    assert dataset.class_names == ()
