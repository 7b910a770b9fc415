import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.draw import (
    Draw,
    check_finite,
    check_probability,
    check_range,
    window_sides,
)


def _draw(n=4000, dtype=torch.float32):
    return Draw(torch.zeros(n, 1, 2, 2, dtype=dtype), torch.Generator().manual_seed(0))


def test_uniform_fills_its_range_evenly():
    drawn = _draw().uniform((-1.0, 3.0))
    assert drawn.shape == (4000,)
    assert -1 <= drawn.min() < -0.98
    assert 2.98 < drawn.max() <= 3
    quarters = torch.histc(drawn, bins=4, min=-1, max=3)
    # 1,000 expected in each, standard deviation 27.
    assert (quarters - 1000).abs().max() < 120


def test_an_empty_range_gives_its_only_value():
    assert (_draw(5).uniform((0.3, 0.3)) == torch.tensor(0.3)).all()


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_chance_is_true_as_often_as_asked(probability):
    share = _draw().chance(probability).float().mean().item()
    assert share == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_noise_is_normal_or_uniform_and_has_the_shape_of_the_batch():
    normal, flat = _draw().noise(normal=True), _draw().noise(normal=False)
    assert normal.shape == flat.shape == (4000, 1, 2, 2)
    assert normal.mean().item() == pytest.approx(0, abs=0.04)
    assert normal.std().item() == pytest.approx(1, abs=0.04)
    assert flat.min() >= 0
    assert flat.max() < 1
    assert flat.mean().item() == pytest.approx(0.5, abs=0.02)


def test_dtype_is_that_of_the_batch():
    draw = _draw(3, torch.float64)
    assert draw.uniform((0, 1)).dtype == torch.float64
    assert draw.noise(normal=True).dtype == torch.float64


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 40), (40, 10)])
def test_windows_fit_and_keep_their_area(height, width):
    down, across = window_sides(_draw(), (height, width), (0.2, 1.0), (0.5, 2.0))
    assert down.max() <= 1
    assert across.max() <= 1
    area = down * across
    quarters = torch.histc(area, bins=4, min=0.2, max=1)
    assert (quarters - 1000).abs().max() < 120


def test_ratio_is_kept_where_it_fits_and_log_uniform():
    down, across = window_sides(_draw(), (20, 40), (0.1, 0.3), (0.5, 2.0))
    ratio = (across * 40) / (down * 20)
    assert ratio.min() >= 0.5 - 1e-5
    assert ratio.max() <= 2 + 1e-5
    assert (ratio > 1).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_ratio_is_log_uniform_over_the_part_that_fits():
    down, across = window_sides(_draw(), (20, 20), (0.8, 0.8), (0.1, 10.0))
    logarithm = torch.log(across / down) / torch.log(torch.tensor(1.25))
    quarters = torch.histc(logarithm, bins=4, min=-1, max=1)
    assert (quarters - 1000).abs().max() < 120


def test_ratio_gives_way_where_none_fits():
    down, across = window_sides(_draw(50), (10, 40), (1.0, 1.0), (0.75, 4 / 3))
    torch.testing.assert_close(down, torch.ones(50))
    torch.testing.assert_close(across, torch.ones(50))


def test_checks_name_what_is_wrong():
    check_probability("p", 0.5)
    check_range("area", (0.1, 0.1), 0, 1)
    with pytest.raises(InvalidInput, match=r"expected flip in \[0, 1\], got 2"):
        check_probability("flip", 2)
    for bounds in ((0.5, 0.2), (-0.1, 0.2), (0.5, 1.5), (float("nan"), 1.0)):
        with pytest.raises(InvalidInput, match=r"expected area .* between 0 and 1, got \("):
            check_range("area", bounds, 0, 1)
    with pytest.raises(InvalidInput, match=r"of at least 0, got \(-1, 2\)"):
        check_range("std", (-1, 2), 0)
    with pytest.raises(InvalidInput, match=r"std .* finite .*, got \(0, inf\)"):
        check_range("std", (0, float("inf")), 0)
    check_finite(alpha=0.2)
    with pytest.raises(InvalidInput, match="expected a finite alpha, got inf"):
        check_finite(alpha=float("inf"))
