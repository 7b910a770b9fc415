"""MNIST-C's own: moved, striped, crossed out and outlined digits."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from embedkit.evaluate.corruption import corrupt


@pytest.fixture
def bar():
    """An upright bar in the middle."""
    image = np.zeros((1, 29, 29, 1), np.uint8)
    image[0, 6:23, 13:16] = 255
    return image


def tilt(image):
    """Angle of the bar from upright, in radians."""
    y, x = np.mgrid[-14:15, -14:15]
    w = image[0, :, :, 0].astype(float)
    return 0.5 * np.arctan2(2 * (w * x * y).sum(), (w * (y * y - x * x)).sum())


@pytest.mark.parametrize(("severity", "angle"), [(1, 0.2), (2, 0.4), (3, 0.6)])
def test_rotate_turns_by_the_angle(bar, severity, angle):
    assert abs(tilt(corrupt(bar, "rotate", severity, ids=("a",)))) == pytest.approx(
        angle, abs=0.02
    )


def test_shear_slants_and_keeps_the_middle(bar):
    found = corrupt(bar, "shear", 2, ids=("a",))
    assert abs(tilt(found)) > 0.2
    np.testing.assert_allclose(center_of_mass(found[0, :, :, 0]), (14, 14), atol=0.3)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.9), (5, 0.5)])
def test_scale_shrinks_to_its_share(severity, share):
    square = np.zeros((1, 29, 29, 1), np.uint8)
    square[0, 4:25, 4:25] = 255
    found = corrupt(square, "scale", severity, ids=("a",)).astype(float)
    assert found.sum() == pytest.approx(share**2 * square.sum(), rel=0.12)


def test_translate_moves_along_a_diagonal(bar):
    moved = {
        tuple(
            np.rint(
                np.array(center_of_mass(corrupt(bar, "translate", 4, ids=(i,))[0, :, :, 0]))
                - 14
            )
        )
        for i in "abcdefghij"
    }
    assert moved <= {(a, b) for a in (-4, 4) for b in (-4, 4)}
    assert len(moved) >= 3


def test_stripe_inverts_the_margins(bar):
    found = corrupt(bar, "stripe", 1, ids=("a",))
    assert (found[:, :, :7] == 255).all()
    np.testing.assert_array_equal(found[:, :, 7:21], bar[:, :, 7:21])


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_lines_only_add_light(bar, name):
    empty = np.zeros((6, 28, 28, 1), np.uint8)
    lines = corrupt(empty, name, 1, ids=tuple("abcdef"))
    lit = (lines > 128).mean(axis=(1, 2, 3))
    assert (lit > 0.01).all()
    assert (lit < 0.2).all()
    assert (corrupt(bar, name, 1, ids=("a",)) >= bar).all()


def test_a_dotted_line_has_gaps():
    lines = corrupt(np.zeros((4, 28, 28, 1), np.uint8), "dotted_line", 1, ids=tuple("abcd"))
    dark = ~(lines > 0).any(axis=(1, 3))
    assert (dark.sum(axis=1) >= 12).all()


def test_canny_outlines_the_bar(bar):
    found = corrupt(bar, "canny_edges", 1, ids=("a",))[0, :, :, 0]
    assert set(np.unique(found)) == {0, 255}
    rows, _ = np.nonzero(found)
    assert 4 <= rows.min() <= 7
    assert 21 <= rows.max() <= 24
    assert not found[14, 14]  # the inside is no edge
    assert 30 < (found > 0).sum() < 60
