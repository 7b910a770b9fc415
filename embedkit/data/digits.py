"""scikit-learn's handwritten digits: real images that come with a dependency."""

import hashlib

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput, MissingDependency
from embedkit.types import Images, Labels

__all__ = ["load_digits_split"]

TEST_IMAGES = 500


def load_digits_split(split: str | None = None) -> Dataset:
    """The 1,797 digits of 8 x 8 pixels, grey levels 0 to 16 scaled to 0 to 255.

    The split is fixed: within each class the images are ordered by the hash of their pixels,
    and the first of them, 500 in all in proportion to the classes, are the test images. It
    depends on no random generator and on no library's version.

    Args:
        split: ``train`` (1,297 images, the default) or ``test`` (500).

    Raises:
        InvalidInput: If there is no such split.
        MissingDependency: If scikit-learn is not installed.
    """
    if split not in {None, "train", "test"}:
        raise InvalidInput(f"expected digits, digits:train or digits:test, got digits:{split}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency(
            "expected scikit-learn, which brings the digits, got no such package; "
            "install it with: pip install 'embedkit[train]'"
        ) from None
    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int64)
    is_test = _test_mask(grey, labels)
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    return Dataset(
        "digits",
        grey[chosen],
        labels[chosen],
        tuple(str(digit) for digit in range(10)),
        tuple(f"digits/{index}" for index in chosen),
    )


def _test_mask(images: Images, labels: Labels) -> npt.NDArray[np.bool_]:
    counts = np.bincount(labels)
    exact = counts * TEST_IMAGES / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    remainder_order = np.argsort(quota - exact, kind="stable")
    quota[remainder_order[: TEST_IMAGES - quota.sum()]] += 1
    keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label, size in enumerate(quota):
        members = sorted(
            np.flatnonzero(labels == label), key=lambda index: (keys[index], index)
        )
        mask[members[:size]] = True
    return mask
