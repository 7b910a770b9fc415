"""The signs of a weak attack are noticed, and an honest result raises none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedkit.evaluate.attack import Target
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.measurement.trial.attacking import Attacked, Trial, mean_shift
from embedkit.evaluate.measurement.trial.figures import attack_figures
from embedkit.evaluate.measurement.trial.sanity import Extra, check_table, sanity_checks
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.outcome import Outcome
from embedkit.evaluate.surrogate import TorchEmbedder, twin
from embedkit.evaluate.tasks.robustness import Robustness
from embedkit.evaluate.threat import Threat
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
    images = np.full((N, 8, 8, 1), 100 + min(int(radius), 99), np.uint8)
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
    return Attacked(replace(outcome, **changes), np.zeros(N), N, Threat("linf", radius))


def series(*counts, **changes):
    return {
        f"{radius:g}": attacked(count, radius, **changes)
        for radius, count in zip((4.0, 8.0, 16.0), counts, strict=True)
    }


NOISE = series(0, 1, 0)
WHITE = Extra(frozenset({"pgd"}))


def weaknesses(trial, runs, noise, extra=WHITE):
    """The findings of all checks."""
    return [p for check in sanity_checks(trial, runs, noise, extra) for p in check.problems]


def test_a_sound_trial_raises_nothing(trial):
    # One image fewer than the black-box attack is luck, not masking.
    runs = {"pgd": series(9, 50, 100), "square": series(10, 30, 80)}
    assert weaknesses(trial, runs, NOISE) == []


def test_white_box_below_black_box_is_noticed(trial):
    runs = {"pgd": series(5, 20, 90), "square": series(5, 30, 80)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "fewer images than the black-box one at 8:" in warning


def test_a_larger_radius_that_is_weaker_is_noticed(trial):
    runs = {"square": series(5, 30, 20)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert warning.startswith("square fooled fewer images at linf 16 than at 8, 20 and 30")


def test_zero_gradients_are_noticed(trial):
    norms = np.where(np.arange(N) < 7, 0.0, 1.0)
    runs = {"pgd": series(5, 30, 80, gradient_norms=norms), "square": series(5, 30, 80)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "gradient was zero for 7 attacked images" in warning


def test_an_attack_below_noise_is_noticed(trial):
    runs = {"square": series(0, 0, 3)}
    (warning,) = weaknesses(trial, runs, NOISE)
    assert "fooled fewer images than random noise at linf 8" in warning


def test_leaving_the_ball_is_noticed(trial):
    runs = {"square": series(5, 30, 80, distances=np.full(N, 16.5))}
    found = weaknesses(trial, runs, NOISE)
    assert len(found) == 3
    assert "left the ball of linf 16" in found[-1]


def test_strength_lost_in_transfer_is_noticed(trial):
    pgd = series(5, 30, 80)
    pgd = {r: replace(run, stages={"twin": np.arange(N) < 82}) for r, run in pgd.items()}
    found = weaknesses(trial, {"pgd": pgd, "square": series(5, 30, 80)}, NOISE)
    assert len(found) == 2
    assert "at linf 8 pgd fooled 52% more" in found[1]


def test_curves_are_shares_of_all_images_examined(trial):
    runs = {"square": series(0, 50, 100)}
    figures: Any = attack_figures(trial, runs, NOISE, ("zero", "one"), rows=2, queries=50)
    curve = figures["accuracy"]["series"]["square"]
    assert figures["accuracy"]["x"] == [0.0, 4.0, 8.0, 16.0]
    np.testing.assert_allclose(curve["y"], [0.8, 0.8, 0.4, 0.0])
    queries = figures["queries"]
    assert queries["x"][-1] == 50
    assert queries["series"]["square, radius 8"]["y"][-1] == 0.5


def test_the_grid_shows_the_most_easily_fooled_first(trial):
    runs = {"square": series(0, 1, 2)}
    figures: Any = attack_figures(trial, runs, NOISE, ("zero", "one"), rows=3, queries=50)
    rows = figures["attacked"]["rows"]
    labels = [row["label"] for row in rows]
    assert labels == ["zero: read as one", "zero: read as one", "zero: withstood"]
    assert all(len(row["images"]) == 4 for row in rows)


def test_runs_made_for_the_checks_are_looked_at(trial):
    runs = {"pgd": series(9, 50, 100)}
    weak, strong = attacked(80, 255.0), attacked(100, 255.0)
    usual = runs["pgd"]["8"]
    sound = Extra(
        frozenset({"pgd"}), 0.0, series(9, 52, 90), strong, ("pgd", usual, attacked(52, 8)), 0.0
    )
    assert weaknesses(trial, runs, NOISE, sound) == []
    for change, message in (
        ({"flips": 0.02}, "2.0% of the decisions about clean images changed"),
        ({"one_step": series(9, 60, 90)}, "one step of the gradient"),
        ({"unbounded": weak}, "with every pixel free 80% of the images were fooled"),
        ({"longer": ("pgd", usual, attacked(70, 8))}, "it has not converged"),
        ({"disagreement": 0.2}, "the twin decides 20.0% of the clean images otherwise"),
    ):
        (problem,) = weaknesses(trial, runs, NOISE, replace(sound, **change))
        assert message in problem


def test_the_table_lists_every_check_with_its_finding(trial):
    checks = sanity_checks(trial, {"square": series(0, 0, 3)}, NOISE, Extra(flips=0.0))
    table: Any = check_table(checks)
    findings = dict(table["rows"])
    assert findings["the model decides alike when asked again"] == "passed"
    assert "random noise" in findings["attacks fool more images than random noise"]


def test_stages_are_a_row_of_shares_from_the_twin_to_the_server(trial):
    run = replace(attacked(50, 8), stages={"twin": np.arange(N) < 60, "png": np.arange(N) < 50})
    figures: Any = attack_figures(
        trial, {"pgd": {"8": run}}, {"8": attacked(0, 8)}, ("zero", "one"), rows=1, queries=50
    )
    # 100 of the 125 images examined are handled.
    assert figures["stages"]["rows"] == [["pgd, radius 8", "0.320", "", "0.400", "0.400", ""]]


def test_a_check_that_nothing_exercised_is_not_among_them(trial):
    names = [c.name for c in sanity_checks(trial, {}, NOISE, Extra(flips=0.0))]
    assert names == ["the model decides alike when asked again"]
    one = {"square": {"8": attacked(30, 8)}}
    names = [c.name for c in sanity_checks(trial, one, NOISE, Extra())]
    assert names == [
        "attacked images are inside the threat",
        "attacks fool more images than random noise",
    ]
    apart = {"pgd": {"4": attacked(30, 4)}, "square": {"8": attacked(30, 8)}}
    assert [c.name for c in sanity_checks(trial, apart, NOISE, WHITE)] == names


@pytest.mark.parametrize("attack", ["pgd", "square"])
@pytest.mark.parametrize("checked", [True, False])
def test_the_cost_is_what_was_really_sent(source, bundle, attack, checked):
    sent = 0

    class Counting(TorchEmbedder):
        def embed(self, images):
            nonlocal sent
            sent += len(images)
            return super().embed(images)

    options = Options(
        attack_images=20,
        attacks=(attack,),
        pgd_steps=3,
        square_queries=5,
        radii_255=(8.0, 32.0),
        attack_checks=checked,
        baselines=False,
    )
    model = Counting(twin(bundle).encoder, bundle.model_digest())
    train, test = source.dataset(80), source.dataset(40, seed=1)
    context = Context(model, train, test, bundle=bundle, options=options)
    cost = Robustness().run(context).cost
    assert cost["images"] + cost["queries"] == sent - len(train)


def test_a_mean_shift_of_few_images_has_no_interval():
    shifts = np.linspace(0.1, 0.5, 30)
    for n in (1, 19):
        assert (mean_shift(shifts[:n]).ci, mean_shift(shifts[:n]).ci_method) == (None, "")
    found = mean_shift(shifts)
    assert found.ci[0] < found.value < found.ci[1]
    assert found.ci_method == "bootstrap"
    unmoved = mean_shift(np.zeros(30))
    assert unmoved.ci == (0, pytest.approx(2 * 0.1157, abs=1e-4))
    assert unmoved.ci_method == "clopper_pearson"
