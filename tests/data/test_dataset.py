import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.errors import BadImage, InvalidInput
from embedkit.preprocess import InputSpec


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 4, 3, 1), dtype=np.uint8)


@pytest.fixture
def labelled(images):
    return Dataset("toy", images, np.array([0, 1, 1, 0, 2]), ("a", "b", "c"))


def test_ids_are_positions_where_none_are_given(labelled):
    assert labelled.ids == ("0", "1", "2", "3", "4")
    assert len(labelled) == 5


def test_the_shape_is_known_for_arrays_only(labelled, picture):
    assert labelled.image_shape == (4, 3, 1)
    assert Dataset("files", (picture(1),)).image_shape is None


def test_arrays_bring_every_image_to_the_models_size(labelled, picture):
    spec = InputSpec(4, 3, 1)
    assert labelled.arrays(spec) is labelled.images
    files = Dataset("files", (picture(9), picture(200, "JPEG", (30, 20))))
    arrays = files.arrays(InputSpec(8, 8, 3))
    assert [image.mean() for image in arrays] == [9, 200]


def test_a_bad_file_is_found_when_it_is_decoded(picture):
    with pytest.raises(BadImage, match="image 1 of 2"):
        Dataset("files", (picture(1), b"nothing")).arrays(InputSpec(8, 8, 3))


def test_a_subset_has_the_chosen_images_in_the_order_given(labelled):
    subset = labelled.subset([4, 1])
    np.testing.assert_array_equal(subset.images, labelled.images[[4, 1]])
    assert subset.labels.tolist() == [2, 1]
    assert subset.ids == ("4", "1")
    assert subset.class_names == labelled.class_names
    assert subset.digest != labelled.digest


def test_a_subset_of_files_without_labels(picture):
    files = Dataset("files", (picture(1), picture(2), picture(3)))
    subset = files.subset(np.array([2, 0]))
    assert subset.images == (picture(3), picture(1))
    assert subset.labels is None


def test_an_empty_subset_is_a_data_set(labelled):
    assert len(labelled.subset([])) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([5], "expected indices from 0 to 4, got 5 to 5"),
        ([-1, 2], "got -1 to 2"),
        ([[0]], r"expected indices as a row of integers, got int64 \(1, 1\)"),
        ([0.5], "got float64"),
        ([True, False, True, False, True], r"got bool \(5,\); use numpy.flatnonzero"),
    ],
)
def test_indices_that_are_none_are_refused(labelled, indices, message):
    with pytest.raises(InvalidInput, match=message):
        labelled.subset(indices)


def test_equal_content_has_an_equal_digest_whatever_it_is_called(images):
    labels = np.array([0, 1, 1, 0, 2])
    first = Dataset("one", images, labels, ("a", "b", "c"))
    second = Dataset(
        "two", np.asfortranarray(images), labels.copy(), ("a", "b", "c"), tuple("vwxyz")
    )
    assert first.digest == second.digest
    assert first.digest.startswith("sha256:")


def test_the_digest_sees_every_change(labelled, picture):
    changed_image = labelled.images.copy()
    changed_image[4, 3, 2, 0] ^= 1
    names = labelled.class_names
    digests = {
        labelled.digest,
        Dataset("toy", changed_image, labelled.labels, names).digest,
        Dataset("toy", labelled.images, labelled.labels[::-1].copy(), names).digest,
        Dataset("toy", labelled.images, labelled.labels, ("a", "c", "b")).digest,
        Dataset("toy", labelled.images).digest,
        Dataset("toy", labelled.images.reshape(5, 3, 4, 1), labelled.labels, names).digest,
        Dataset("toy", (picture(1), picture(2))).digest,
        Dataset("toy", (picture(1) + picture(2),)).digest,
    }
    assert len(digests) == 8


def test_a_digest_that_is_given_is_kept(images):
    assert Dataset("toy", images, digest="sha256:00").digest == "sha256:00"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((5, 4, 3, 1))}, r"expected the images of toy as uint8 .* float64"),
        ({"images": np.zeros((5, 4, 3), np.uint8)}, r"got uint8 \(5, 4, 3\)"),
        ({"images": np.zeros((5, 4, 3, 2), np.uint8)}, r"got uint8 \(5, 4, 3, 2\)"),
        ({"ids": ("a",)}, "expected one id per image of toy, got 1 for 5 images"),
        ({"labels": np.zeros(4, np.int64)}, r"expected one int64 label for each of the 5"),
        ({"labels": np.zeros(5, np.int32)}, r"got int32 \(5,\)"),
        ({"labels": np.full(5, 3)}, "expected labels of toy from 0 to 2.*got 3 to 3"),
        ({"labels": np.full(5, -1)}, "got -1 to -1"),
        ({"class_names": ("a", "b", "a")}, "a name of its own, got a more than once"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(images, change, message):
    parts = {"images": images, "labels": np.zeros(5, np.int64), "class_names": ("a", "b", "c")}
    with pytest.raises(InvalidInput, match=message):
        Dataset("toy", **{**parts, **change})
