import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.erase import Erase

SIZE = (20, 30)


def _run(erase: Erase, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    # Above 0, so that whatever is lost to zero shows.
    drawn = torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(9))
    pixels = 0.1 + 0.9 * drawn
    changed = erase(pixels, torch.Generator().manual_seed(seed))
    return pixels.numpy(), changed.numpy()


def _boxes(lost: np.ndarray) -> np.ndarray:
    """First row, last row + 1, first column, last column + 1 of each mask (h, w)."""
    boxes = []
    for mask in lost:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return np.array(boxes)


def test_what_is_lost_is_one_full_rectangle_in_all_channels():
    pixels, changed = _run(Erase(p=1.0, fill="zero"))
    lost = (pixels != changed).all(axis=1)
    np.testing.assert_array_equal(lost, (pixels != changed).any(axis=1))
    for mask, (top, bottom, left, right) in zip(lost, _boxes(lost), strict=True):
        assert mask[top:bottom, left:right].all()
        assert mask.sum() == (bottom - top) * (right - left)


def test_area_and_ratio_are_as_asked_up_to_whole_pixels():
    pixels, changed = _run(Erase(area=(0.1, 0.3), ratio=(0.5, 2.0), p=1.0, fill="zero"), 1000)
    boxes = _boxes((pixels != changed).all(axis=1))
    tall, wide = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    area = tall * wide / (SIZE[0] * SIZE[1])
    assert 0.08 < area.min() < 0.12
    assert 0.28 < area.max() < 0.33
    assert area.mean() == pytest.approx(0.2, abs=0.01)
    # Half a pixel of rounding on each side of at least five pixels.
    assert (wide / tall).min() > 0.5 * 0.82
    assert (wide / tall).max() < 2 * 1.2


def test_rectangles_reach_every_border():
    pixels, changed = _run(Erase(area=(0.05, 0.2), p=1.0, fill="zero"), 1000)
    boxes = _boxes((pixels != changed).all(axis=1))
    assert boxes[:, 0].min() == 0
    assert boxes[:, 2].min() == 0
    assert boxes[:, 1].max() == SIZE[0]
    assert boxes[:, 3].max() == SIZE[1]
    middle = (boxes[:, 2] + boxes[:, 3]) / 2
    assert middle.mean() == pytest.approx(SIZE[1] / 2, abs=1.0)


def test_fill_decides_what_takes_its_place():
    pixels, zero = _run(Erase(p=1.0, fill="zero"))
    _, mean = _run(Erase(p=1.0, fill="mean"))
    _, noise = _run(Erase(p=1.0, fill="noise"))
    lost = zero != pixels
    assert (zero[lost] == 0).all()
    of_image = np.broadcast_to(pixels.mean(axis=(2, 3), keepdims=True), pixels.shape)
    np.testing.assert_allclose(mean[lost], of_image[lost], atol=1e-6)
    assert noise[lost].mean() == pytest.approx(0.5, abs=0.02)
    assert noise[lost].std() == pytest.approx(12**-0.5, abs=0.02)


@pytest.mark.parametrize("arguments", [{"area": (0.0, 0.3)}, {"ratio": (0.0, 1.0)}])
def test_impossible_rectangles_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected area and ratio above 0"):
        Erase(**arguments)
