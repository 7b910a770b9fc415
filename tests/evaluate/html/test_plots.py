"""Plots: points where the data says, for odd data too."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from embedkit.evaluate.html.axes import Frame, Scale, number, path, span
from embedkit.evaluate.html.plots import Drawing, Grid, draw_figures


def parse(drawing):
    return ElementTree.fromstring(str(drawing.svg))


def points(element):
    return np.array([pair.split(",") for pair in element.get("points").split()], float)


def of_class(root, name):
    return [node for node in root.iter() if name in (node.get("class") or "").split()]


def draw(figure):
    (drawing,) = draw_figures({"one": figure})
    assert isinstance(drawing, Drawing)
    return drawing


def test_linear_scale_maps_its_ends_and_clips_beyond():
    scale = Scale(2, 4, 100, 300)
    assert [scale(v) for v in (2, 3, 4, 9, -1)] == [100, 200, 300, 300, 100]


def test_log_scale_is_even_per_decade():
    scale = Scale(1, 1000, 0, 300, log=True)
    assert [round(scale(v), 6) for v in (1, 10, 100, 1000)] == [0, 100, 200, 300]
    assert scale.ticks() == (1, 10, 100, 1000)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.4, 0.55), (3, 70_000), (1e-8, 1.5e-7), (-5, -4)]
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = Scale(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 7
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert len({number(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1500, "1500"),
        (1.5e-7, "1.5e-7"),
        (2e6, "2e6"),
        (1e-16, "1e-16"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_span_of_nothing_and_of_one_value_is_not_empty():
    for values in ([], [3.0], [0.0, 0.0], [float("nan")]):
        low, high = span(values)
        assert low < high
    assert span([1.0, 3.0], margin=0.5) == (0.0, 4.0)


def test_an_empty_path_is_nothing():
    assert path([], "line") == ""


def test_roc_starts_and_ends_in_the_corners():
    figure = {"kind": "roc", "fpr": [0, 0.25, 1], "tpr": [0, 1, 1], "label": "far.knn"}
    drawing = draw(figure)
    (line,) = of_class(parse(drawing), "line")
    frame = Frame.around((0, 1), (0, 1))
    expected = frame.points([0, 0.25, 1], [0, 1, 1])
    np.testing.assert_allclose(points(line), expected, atol=0.06)
    assert drawing.legend == (("c0", "far.knn"),)
    assert len(of_class(parse(drawing), "chance")) == 1


def test_roc_curves_share_a_plot_up_to_six():
    one = {"kind": "roc", "fpr": [0, 1], "tpr": [0, 1], "label": "x"}
    drawings = draw_figures({str(i): one for i in range(8)})
    assert [len(d.legend) for d in drawings if isinstance(d, Drawing)] == [6, 2]


def test_histogram_bars_are_shares_of_each_series():
    series = {"known": [0.0] * 3 + [1.0], "novel": [1.0] * 10}
    drawing = draw({"kind": "histogram", "title": "t", "series": series})
    known, novel = of_class(parse(drawing), "line")
    bottom = points(known)[0, 1]
    heights = [bottom - points(line)[:, 1].min() for line in (known, novel)]
    assert heights[0] / heights[1] == pytest.approx(0.75, abs=0.01)
    assert [name for _, name in drawing.legend] == ["known", "novel"]


def test_curve_has_a_line_in_its_band():
    values = {"y": [1.0, 0.5, 0.2], "lo": [0.9, 0.4, 0.1], "hi": [1.0, 0.6, 0.3]}
    figure = {
        "kind": "curve",
        "title": "Accuracy",
        "x": [0, 4, 8],
        "series": {"PGD": values},
        "xlabel": "radius",
        "ylabel": "accuracy",
    }
    root = parse(draw(figure))
    (line,), (band,) = of_class(root, "line"), of_class(root, "band")
    assert len(of_class(root, "dot")) == 3
    low, high = points(band)[:3, 1], points(band)[:2:-1, 1]
    assert ((low >= points(line)[:, 1]) & (points(line)[:, 1] >= high)).all()
    ticks = [node.text for node in of_class(root, "tick")]
    assert ticks[:3] == ["0", "4", "8"]
    assert root.get("aria-label") == "Accuracy"


def test_a_long_range_of_x_is_logarithmic():
    x = list(range(1, 501))
    values = {"y": [0.5] * 500, "lo": [0.5] * 500, "hi": [0.5] * 500}
    figure = {"kind": "curve", "x": x, "series": {"a": values}, "xlabel": "", "ylabel": ""}
    (line,) = of_class(parse(draw(figure)), "line")
    placed = points(line)[:, 0]
    frame = Frame.around((1, 500), (0, 1), log_x=True)
    assert placed[9] == pytest.approx(frame.x(10), abs=0.1)
    assert placed[9] - placed[0] > 3 * (placed[499] - placed[400])


def test_scatter_groups_points_by_label():
    labels = [f"class {i % 14:02}" for i in range(42)]
    rng = np.random.default_rng(0)
    figure = {
        "kind": "scatter2d",
        "x": rng.random(42).tolist(),
        "y": rng.random(42).tolist(),
        "labels": labels,
    }
    drawing = draw(figure)
    groups = of_class(parse(drawing), "point")
    assert [len(group) - 1 for group in groups] == [3] * 14
    assert len(drawing.legend) == 12
    assert drawing.more == 2


def test_an_image_grid_keeps_its_rows():
    rows = [{"label": "a", "images": ["aGk=", "aGk="]}, {"label": "b", "images": []}]
    (grid,) = draw_figures({"g": {"kind": "image_grid", "title": "t", "rows": rows}})
    assert grid == Grid("t", (("a", ("aGk=", "aGk=")), ("b", ())))


@pytest.mark.parametrize(
    "figure",
    [
        {"kind": "histogram", "series": {}},
        {"kind": "histogram", "series": {"a": [], "b": [1.0]}},
        {"kind": "histogram", "series": {"a": [2.0, 2.0], "b": [None, "x"]}},
        {"kind": "roc", "fpr": [], "tpr": [], "label": ""},
        {"kind": "curve", "x": [], "series": {}, "xlabel": "", "ylabel": ""},
        {
            "kind": "curve",
            "x": [5],
            "series": {"a": {"y": [None], "lo": [0], "hi": [1]}},
            "xlabel": "",
            "ylabel": "",
        },
        {"kind": "scatter2d", "x": [], "y": [], "labels": []},
        {"kind": "scatter2d", "x": [1.0], "y": [1.0], "labels": ["a"]},
    ],
)
def test_odd_data_gives_a_plot_without_nan(figure):
    drawing = draw(figure)
    parse(drawing)
    assert not re.search(r"\bnan\b|\binf\b", str(drawing.svg))


def test_series_beyond_the_palette_start_over():
    series = {f"s{i:02}": [float(i), i + 1.0] for i in range(12)}
    drawing = draw({"kind": "histogram", "series": series})
    assert [css for css, _ in drawing.legend][-2:] == ["c0", "c1"]


def test_reliability_shows_each_bin_with_its_weight():
    bins = {"confidence": [0.25, 0.75], "accuracy": [0.5, 0.6], "count": [2, 98]}
    drawing = draw({"kind": "reliability", "series": {"as it is": bins}})
    small, large = of_class(parse(drawing), "dot")
    assert float(small.get("r")) < float(large.get("r")) <= 10
    assert float(small.get("cx")) < float(large.get("cx"))
    (line,) = of_class(parse(drawing), "line")
    frame = Frame.around((0, 1), (0, 1))
    expected = [(frame.x(0.25), frame.y(0.5)), (frame.x(0.75), frame.y(0.6))]
    np.testing.assert_allclose(points(line), expected, atol=0.06)
    assert drawing.legend == (("c0", "as it is"),)


def test_bins_of_a_few_images_do_not_bend_the_line():
    bins = {"confidence": [0.2, 0.5, 0.9], "accuracy": [1, 0.5, 0.9], "count": [1, 50, 50]}
    root = parse(draw({"kind": "reliability", "series": {"as it is": bins}}))
    assert len(of_class(root, "dot")) == 3
    (line,) = of_class(root, "line")
    assert len(points(line)) == 2
