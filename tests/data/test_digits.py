import sys

import numpy as np
import pytest

from embedkit.data.digits import load_digits_split
from embedkit.errors import InvalidInput, MissingDependency


def test_the_splits_have_the_stated_sizes_and_form():
    train, test = load_digits_split(), load_digits_split("test")
    assert (len(train), len(test)) == (1297, 500)
    for split in (train, test):
        assert split.name == "digits"
        assert split.image_shape == (8, 8, 1)
        assert split.class_names == tuple("0123456789")
        assert (split.images.min(), split.images.max()) == (0, 255)


def test_the_splits_share_no_image_and_leave_none_out():
    from sklearn.datasets import load_digits

    train, test = load_digits_split("train"), load_digits_split("test")
    assert len({*train.ids, *test.ids}) == 1797
    originals = load_digits()
    for split in (train, test):
        positions = [int(name.removeprefix("digits/")) for name in split.ids]
        np.testing.assert_array_equal(split.labels, originals.target[positions])
        levels = split.images[..., 0] * (16 / 255)
        np.testing.assert_allclose(levels, originals.images[positions], atol=0.04)


def test_every_class_has_its_share_of_test_images():
    train, test = load_digits_split("train"), load_digits_split("test")
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert np.abs(np.bincount(test.labels) - counts * 500 / 1797).max() < 1


def test_the_split_is_fixed():
    assert load_digits_split("train").digest == (
        "sha256:de65a2dfe90fd948fba569149068485fafcd1b6614c5da87eb1435ecfbc61a87"
    )
    assert load_digits_split("test").digest == (
        "sha256:3e2260d73704fc68135b2c2f80e140f2ef21e63bfbde7cf838dbc0b0be9fc71a"
    )


def test_another_split_is_refused():
    with pytest.raises(InvalidInput, match="expected digits, digits:train or digits:test, got"):
        load_digits_split("val")


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependency, match=r"embedkit\[train\]"):
        load_digits_split()
