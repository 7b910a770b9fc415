import numpy as np
import pytest

from embedkit.data.labels import class_order, index_labels, numbered_names
from embedkit.errors import InvalidInput


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["10", "9", "cat"], ("10", "9", "cat")),
        (["01", "1"], ("01", "1")),
        (["²", "3"], ("3", "²")),
        ([], ()),
    ],
)
def test_classes_are_in_order_of_number_or_name(names, expected):
    assert class_order(names) == expected


def test_labels_are_positions_among_the_classes():
    labels = index_labels(["b", "a", "b"], ("a", "b", "c"))
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1]


def test_classes_without_names_are_called_by_their_number():
    assert numbered_names(np.array([2, 0], np.uint8), "y") == ("0", "1", "2")
    assert numbered_names(np.zeros(0, np.int64), "y") == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), r"labels of y as integers \(n,\), got float64 \(2,\)"),
        (np.array([[0], [1]]), r"got int64 \(2, 1\)"),
        (np.array([-1, 3]), "from 0 to 99,999, got -1 to 3"),
        (np.array([0, 20240101]), "got 0 to 20,240,101"),
    ],
)
def test_what_is_no_class_index_is_refused(labels, message):
    with pytest.raises(InvalidInput, match=message):
        numbered_names(labels, "y")
