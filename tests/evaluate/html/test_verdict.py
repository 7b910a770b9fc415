"""Traffic lights: only a number that beats every baseline is green."""

import pytest

from embedkit.evaluate.html.strip import draw_strip
from embedkit.evaluate.html.verdict import Reading, judge


def reading(value, low=None, high=None, *, up=True):
    ci = None if low is None else [low, high]
    return Reading.of(
        {"value": value, "ci": ci, "n": 9, "unit": "fraction", "higher_is_better": up}
    )


@pytest.mark.parametrize(
    ("metric", "baselines", "light"),
    [
        (reading(0.9, 0.8, 0.95), {"raw_pixels": reading(0.5, 0.4, 0.6)}, "good"),
        (reading(0.9, 0.8, 0.95), {"raw_pixels": reading(0.7, 0.6, 0.85)}, "mixed"),
        (reading(0.9, 0.8, 0.95), {"raw_pixels": reading(0.9, 0.8, 0.95)}, "bad"),
        (reading(0.1, 0.05, 0.2, up=False), {"x": reading(0.5, 0.4, 0.6, up=False)}, "good"),
        (reading(0.5, 0.4, 0.6, up=False), {"x": reading(0.1, 0.05, 0.2, up=False)}, "bad"),
        (reading(0.9), {"raw_pixels": reading(0.5)}, "mixed"),
        (reading(0.9), {"raw_pixels": reading(0.5, 0.4, 0.6)}, "mixed"),
        (reading(0.9, 0.8, 0.95), {"raw_pixels": reading(0.5)}, "mixed"),
        (reading(0.9, 0.8, 0.95), {}, "none"),
        (reading(None), {"raw_pixels": reading(0.5)}, "none"),
        (reading(0.9), {"raw_pixels": reading(None)}, "none"),
        (reading(0.9, 0.8, 0.95), {"random_noise": reading(0.99, 0.97, 1.0)}, "none"),
        (
            reading(0.9, 0.8, 0.95),
            {"raw_pixels": reading(0.1, 0.0, 0.2), "random_encoder": reading(0.95, 0.9, 1.0)},
            "bad",
        ),
    ],
)
def test_lights(metric, baselines, light):
    assert judge(metric, baselines).light == light


def test_the_reason_names_the_baseline():
    verdict = judge(reading(0.5, 0.4, 0.6), {"random_encoder": reading(0.8, 0.7, 0.9)})
    assert verdict.reason == "not better than random encoder"


def test_the_reason_says_whose_interval_is_missing():
    sure, unsure = reading(0.9, 0.8, 0.95), reading(0.5)
    assert judge(unsure, {"x": reading(0.1, 0.0, 0.2)}).reason.endswith("has no interval")
    assert judge(sure, {"raw_pixels": unsure}).reason.endswith("no interval for raw pixels")


def test_a_reading_without_interval_is_a_point():
    point = Reading.of({"value": 2, "ci": None, "n": 3})
    assert (point.low, point.high, point.has_interval) == (2, 2, False)


def test_an_interval_with_a_missing_end_is_none():
    assert not Reading.of({"value": 2, "ci": [1, None], "n": 3}).has_interval


def test_the_strip_places_value_interval_and_baselines():
    strip = str(draw_strip(reading(0.5, 0.25, 0.75), [reading(0.0), reading(1.0)]))
    assert 'cx="60.0"' in strip
    assert 'x1="32.0" x2="88.0"' in strip
    assert strip.count('class="rival"') == 2


def test_only_shares_have_a_strip():
    assert draw_strip(Reading.of({"value": 3.0, "unit": "count"}), []) == ""
    assert draw_strip(reading(None), []) == ""
