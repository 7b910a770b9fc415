"""Figures worked out by hand."""

import json

import numpy as np
import pytest

from embedkit.bench.serving.load import Slice
from embedkit.bench.serving.measure import Case, Round
from embedkit.bench.serving.plot import plot
from embedkit.bench.serving.raw import RawRun
from embedkit.bench.serving.result import best_size, figures_of, raw_figures
from embedkit.errors import InvalidInput


def bare(rate):
    """A bare session of ``rate`` images/s at batch 32, and slower elsewhere."""
    return [
        RawRun(1, rate / 2, 2e6 / rate, 2e3 / rate),
        RawRun(32, rate, 1e6 / rate, 32e3 / rate),
    ]


def served(calls, seconds=2.0, *, cpu=1.0, latency_s=0.01):
    return Slice(
        seconds, calls, np.full(calls, latency_s), {"OK": calls, "UNAVAILABLE": 1}, {}, cpu, 0.5
    )


UNARY = Case("unary", 1, 1)
ROUNDS = [
    Round(bare(1000), served(1000), bare(1000), {1.0: 10.0}),  # 500/s of 1000/s
    Round(bare(1000), served(600), bare(500), {1.0: 5.0, 2.0: 1.0}),  # 300/s of 750/s
    Round(bare(500), served(900), bare(500), {}),  # 450/s of 500/s
]


def test_efficiency_is_of_the_same_round_and_its_median_is_over_rounds():
    figures = figures_of(UNARY, ROUNDS, 32)
    assert figures["efficiency"]["rounds"] == [0.5, 0.4, 0.9]
    assert figures["efficiency"]["median"] == pytest.approx(0.5)
    assert (figures["efficiency"]["min"], figures["efficiency"]["max"]) == pytest.approx(
        (0.4, 0.9)
    )
    # 1 s of CPU for 1000 calls is 1000 µs; the bare session takes 1000 µs in that round.
    assert figures["cpu_efficiency"]["rounds"][0] == pytest.approx(1.0)
    assert figures["overhead_us_per_call"]["rounds"][0] == pytest.approx(0.0)
    # A bare run of one image takes 2 ms there, a served one 10.
    assert figures["over_lone_ms"]["rounds"][0] == pytest.approx(8.0)
    assert figures["codes"] == {"OK": 2500, "UNAVAILABLE": 3}
    assert figures["batches"] == {"1": 15.0, "2": 1.0}
    assert figures["latency_ms"]["p99.9"] == pytest.approx(10.0)
    assert figures["latency_ms"]["n"] == 2500


def test_images_per_call_count():
    figures = figures_of(
        Case("multi-image", 64, 4), [Round(bare(64), served(1), bare(64), {})], 32
    )
    assert figures["images_per_s"]["median"] == 32
    assert figures["efficiency"]["median"] == 0.5
    assert "over_lone_ms" not in figures


def test_the_best_size_is_chosen_once_over_all_rounds():
    lucky = [RawRun(1, 5000, 1, 1), RawRun(32, 900, 1, 1)]
    rounds = [*ROUNDS, Round(lucky, served(1), lucky, {})]
    assert best_size(rounds) == 32
    figures = raw_figures(rounds)
    assert figures["batch"] == 32
    assert figures["cores"]["median"] == pytest.approx(1.0)
    assert figures["sizes"]["32"]["images_per_s"]["rounds"] == [1000, 1000, 500, 900]


def test_what_is_unknown_is_null_in_strict_json():
    unknown = served(10, cpu=float("nan"))
    figures = figures_of(UNARY, [Round([], unknown, [], {})], None)
    assert figures["server_cpu_us_per_call"] == {
        "median": None,
        "min": None,
        "max": None,
        "rounds": [None],
    }
    assert "efficiency" not in figures
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot_is_drawn(tmp_path, suffix):
    opened = Slice(1.0, 0, np.empty(0), {"UNAVAILABLE": 1}, {}, 1.0, 1.0)
    cases = {UNARY: ROUNDS, Case("unary", load=0.5): [Round(bare(9), opened, bare(9), {})]}
    model = {"model": "m", "cases": [figures_of(c, rounds, 32) for c, rounds in cases.items()]}
    plot([model, model], tmp_path / f"p{suffix}")
    start = (tmp_path / f"p{suffix}").read_bytes()[:60]
    assert start.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_a_plot_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"\.png"):
        plot([], tmp_path / "p.txt")


def test_a_stretch_in_which_no_call_ended_has_no_latency_and_no_division_by_zero():
    empty = Slice(1.0, 0.5, np.empty(0), {}, {}, 0.0, 0.1)
    figures = figures_of(UNARY, [Round(bare(10), empty, bare(10), {})], 32)
    assert figures["latency_ms"] == {"n": 0}
    assert figures["over_lone_ms"]["median"] is None
    assert figures["cpu_efficiency"]["median"] is None
    json.dumps(figures, allow_nan=False)
