"""The signs of a weak attack are noticed, and an honest result raises none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedkit.evaluate.attack import Outcome, Target
from embedkit.evaluate.measurement.trial import Attacked, Trial
from embedkit.evaluate.measurement.trial_report import attack_figures, weaknesses
from embedkit.evaluate.oracle import KnnHead
from embedkit.testing import ConstantEmbedder
from embedkit.types import Usage

N = 100


@pytest.fixture
def trial():
    images = np.full((N, 8, 8, 1), 100, np.uint8)
    bank = np.eye(8, dtype=np.float32)[:2]
    head = KnnHead(bank, np.array([0, 1]), np.zeros(N, int), k=1)
    target = Target(ConstantEmbedder(), head, images, tuple(map(str, range(N))))
    clean = np.tile(bank[0], (N, 1))
    return Trial(head, target, clean, np.arange(N + 25), np.arange(N + 25) < N)


def attacked(count, radius, **changes):
    """The first ``count`` images are fooled."""
    success = np.arange(N) < count
    embeddings = np.eye(8, dtype=np.float32)[success.astype(int)]
    images = np.full((N, 8, 8, 1), 100 + int(radius), np.uint8)
    outcome = Outcome(
        images,
        success,
        np.full(N, float(radius)),
        images.astype(np.float32),
        embeddings,
        np.where(success, 10, 50),
        Usage(),
        False,
    )
    return Attacked(replace(outcome, **changes), np.zeros(N), N)


def series(*counts, **changes):
    return {
        radius: attacked(count, radius, **changes)
        for radius, count in zip((4.0, 8.0, 16.0), counts, strict=True)
    }


NOISE = series(0, 1, 0)


def test_a_sound_trial_raises_nothing(trial):
    # One image fewer than the black-box attack is luck, not masking.
    runs = {"pgd": series(9, 50, 100), "square": series(10, 30, 80)}
    assert weaknesses(trial, runs, NOISE) == []


def test_white_box_below_black_box_is_noticed(trial):
    runs = {"pgd": series(5, 20, 90), "square": series(5, 30, 80)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "fewer images than the black-box one at radius 8:" in warning


def test_a_larger_radius_that_is_weaker_is_noticed(trial):
    runs = {"square": series(5, 30, 20)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert warning.startswith(
        "Square (black box) fooled fewer images at radius 16 than at 8, 20 and 30"
    )


def test_zero_gradients_are_noticed(trial):
    norms = np.where(np.arange(N) < 7, 0.0, 1.0)
    runs = {"pgd": series(5, 30, 80, gradient_norms=norms), "square": series(5, 30, 80)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "gradient was zero for 7 attacked images" in warning


def test_an_attack_below_noise_is_noticed(trial):
    runs = {"square": series(0, 0, 3)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "fooled fewer images than random noise at radius 8" in warning


def test_leaving_the_ball_is_noticed(trial):
    runs = {"square": series(5, 30, 80, distances=np.full(N, 16.5))}
    found = weaknesses(trial, runs, NOISE)
    assert len(found) == 3
    assert "left the ball of radius 16" in found[-1]


def test_strength_lost_in_transfer_is_noticed(trial):
    pgd = series(5, 30, 80)
    pgd = {r: replace(run, twin_success=np.arange(N) < 82) for r, run in pgd.items()}
    found = weaknesses(trial, {"pgd": pgd, "square": series(5, 30, 80)}, NOISE)
    assert len(found) == 2
    assert "at radius 8 the white-box attack fooled 52% more" in found[1]


def test_curves_are_shares_of_all_images_examined(trial):
    runs = {"square": series(0, 50, 100)}
    figures: Any = attack_figures(trial, runs, NOISE, ("zero", "one"), rows=2)
    curve = figures["accuracy"]["series"]["Square (black box)"]
    assert figures["accuracy"]["x"] == [0.0, 4.0, 8.0, 16.0]
    np.testing.assert_allclose(curve["y"], [0.8, 0.8, 0.4, 0.0])
    queries = figures["queries"]
    assert queries["x"][-1] == 50
    assert queries["series"]["radius 8"]["y"][-1] == 0.5


def test_the_grid_shows_the_most_easily_fooled_first(trial):
    runs = {"square": series(0, 1, 2)}
    figures: Any = attack_figures(trial, runs, NOISE, ("zero", "one"), rows=3)
    rows = figures["attacked"]["rows"]
    labels = [row["label"] for row in rows]
    assert labels == ["zero: read as one", "zero: read as one", "zero: withstood"]
    assert all(len(row["images"]) == 4 for row in rows)
