import pytest

from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        ("test", ("train", "test"), "test"),
        (None, ("test", "train"), "train"),
        (None, ("val",), "val"),
    ],
)
def test_the_split_is_the_one_asked_for_or_train_or_the_only_one(asked, found, expected):
    assert choose_split(asked, found, "x.npz") == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("tset", "expected a split 'tset' of x.npz, got the splits val, test"),
        (None, "expected one of its splits after a colon of x.npz, got the splits val, test"),
    ],
)
def test_any_other_is_refused_with_what_there_is(asked, message):
    with pytest.raises(InvalidInput, match=message):
        choose_split(asked, ("val", "test"), "x.npz")
