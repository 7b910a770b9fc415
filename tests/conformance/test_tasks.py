"""What every task promises: 1 for an encoder that knows all, chance for one that knows none."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import embedkit.evaluate.tasks
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.html.words import ABOUT, term_of
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.task import Foretelling, TaskResult, tasks
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages

NAMES = tasks.names()
SOURCE = SyntheticImages(classes=4)


@dataclass(frozen=True)
class Expected:
    """A metric, and its value for the encoder that knows all and the one that knows none."""

    metric: str
    perfect: float
    chance: float


# A task that needs a bundle is skipped by both encoders, with the reason.
EXPECTED = {
    "accuracy_estimation": [
        Expected("true", 1, 0.25),
        Expected("confidence", 1, 0.25),
        Expected("threshold", 1, 0.25),
        Expected("agreement", 1, 1),
    ],
    "calibration": [
        Expected("served.ece", 0, 0),
        Expected("served.brier", 0, 0.75),
        Expected("linear.scaled.brier", 0, 0.75),
    ],
    "certified": [
        # Of the 80 images, 12 are certified, and their classes are not balanced.
        Expected("knn.32.abstained", 0, 0),
    ],
    "centroid": [Expected("top1", 1, 0.25)],
    "classify": [Expected("top1", 1, 0.25)],
    "clustering": [
        Expected("nmi", 1, 0),
        Expected("ari", 1, 0),
        Expected("purity", 1, 0.25),
    ],
    "corruption": [
        Expected("clean_error", 0, 0.75),
        Expected("gaussian_blur.1.error", 0, 0.75),
        Expected("gaussian_blur.drift", 0, 0),
        Expected("jpeg_recode.5.error", 0, 0.75),
    ],
    "drift": [
        Expected("halves.mmd.alarms", 1, 0),
        Expected("halves.classifier.alarms", 1, 0),
        Expected("halves.dimensions.alarms", 1, 0),
        Expected("halves.ood_score.alarms", 1, 0),
    ],
    "few_shot": [Expected("top1_n1", 1, 0.25), Expected("top1_logistic_n2", 1, 0.25)],
    "geometry": [
        Expected("nc4_disagreement", 0, 0.75),
        Expected("participation_ratio", 3, 0),
        Expected("rankme", 4, 1),
    ],
    "invariance": [
        Expected("none.top1", 1, 0.25),
        Expected("flip.top1", 1, 0.25),
        Expected("blur.top1", 1, 0.25),
    ],
    "knn": [
        Expected(m, 1, 0.25)
        for m in (
            *("top1", "top1_k1", "top1_k5", "top1_k200"),
            *("top1_lightly_k200", "top1_majority_k5", "top1_majority_k20"),
        )
    ],
    "latency": [],
    "linear": [Expected("top1", 1, 0.25), Expected("top1_sgd", 1, 0.25)],
    "memorisation": [],
    "naive_bayes": [Expected("top1", 1, 0.25)],
    "risk": [Expected("total", 0, 0.75), Expected("usability", 0, 0.75)],
    "rmqm": [Expected("total", 0, 0)],
    "transfer": [
        Expected(f"other.{kind}.top1", 1, 0.25) for kind in ("knn", "linear", "shift")
    ],
    "one_class": [Expected("mean.one_class_knn.auroc", 1, 0.5)],
    "ood": [
        Expected("halves.knn.auroc", 1, 0.5),
        Expected("halves.mahalanobis.auroc", 1, 0.5),
        Expected("halves.served.auroc", 1, 0.5),
        Expected("halves.knn.fpr95_id_positive", 0, 1),
    ],
    "retrieval": [
        *(Expected(m, 1, 0.25) for m in ("precision_at_1", "recall_at_1")),
    ],
    "robustness": [Expected("accuracy", 1, 0.25), Expected("square.1.accuracy", 1, 0.25)],
    "parity": [],
}
# Ranks add 1e-7 to every share, so that they are no whole numbers.
TOLERANCE = 1e-4
MEASURES_TIME = {"latency"}
# What they measure says nothing of how much an encoder knows.
SCORELESS = {"latency", "memorisation"}


def context(embedder):
    return Context(
        embedder,
        SOURCE.dataset(240, name="train"),
        SOURCE.dataset(80, seed=1, name="test"),
        {"halves": SOURCE.novel(60), "other": SOURCE.dataset(40, seed=3, name="other")},
        options=Options(
            attack_images=80,
            square_queries=10,
            radii_255=(1.0,),
            shots=(1, 2),
            shot_draws=2,
            view_images=40,
            latency_calls=5,
            drift_streams=3,
            corruptions=("gaussian_blur", "jpeg_recode"),
            corruption_images=40,
            severities=(1, 5),
            certified_images=12,
            certified_radii_255=(8.0,),
            certified_select=20,
            certified_estimate=40,
        ),
    )


def run(name, embedder) -> TaskResult:
    return tasks.get(name)().run(context(embedder))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_every_task_is_expected_to_give_something():
    assert set(EXPECTED) == set(NAMES)


def test_each_file_registers_its_own_name(name):
    modules = {p.stem for p in Path(embedkit.evaluate.tasks.__path__[0]).glob("[!_]*.py")}
    assert name in modules
    assert tasks.get(name).__module__ == f"embedkit.evaluate.tasks.{name}"
    assert tasks.summary(name).endswith(".")


@pytest.mark.parametrize("kind", ["perfect", "chance"])
def test_score_of_the_extreme_encoders(name, kind):
    embedder = PerfectEmbedder(SOURCE) if kind == "perfect" else ConstantEmbedder(SOURCE.spec)
    result = run(name, embedder)
    if name in SCORELESS:
        assert result.status == "ok"
        return
    if not EXPECTED[name]:
        assert result.status == "skipped"
        assert "bundle" in result.warnings[0]
        return
    assert result.status == "ok"
    for expected in EXPECTED[name]:
        value = result.metrics[expected.metric].value
        assert value == pytest.approx(getattr(expected, kind), abs=TOLERANCE), expected


def test_its_metrics_are_those_it_foretold(name):
    task, given = tasks.get(name)(), context(PerfectEmbedder(SOURCE))
    assert isinstance(task, Foretelling)
    assert set(task.run(given).metrics) <= set(task.metric_names(given))


def test_metrics_have_n_and_an_interval_that_holds_the_value(name):
    result = run(name, PerfectEmbedder(SOURCE))
    for path, metric in result.metrics.items():
        assert metric.n >= 1, path
        assert np.isfinite(metric.value), path
        if metric.ci is not None:
            assert metric.ci[0] <= metric.value <= metric.ci[1], path
            assert metric.ci_method, path


def test_baselines_have_the_metrics_of_the_model(name):
    result = run(name, PerfectEmbedder(SOURCE))
    for metrics in result.baselines.values():
        assert set(metrics) <= set(result.metrics)


def test_the_same_seed_gives_the_same_result(name):
    if name in MEASURES_TIME:
        pytest.skip("time is what it measures")
    first, second = (run(name, PerfectEmbedder(SOURCE)) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert first.items.keys() == second.items.keys()
    for key, array in first.items.items():
        np.testing.assert_array_equal(array, second.items[key])


def test_unlabelled_data_is_a_reason_and_not_a_crash(name):
    source = context(PerfectEmbedder(SOURCE))
    bare = SOURCE.novel(80, name="bare")
    result = tasks.get(name)().run(
        Context(source.served, source.train, bare, source.ood, options=source.options)
    )
    assert result.status in ("ok", "skipped")
    if result.status == "skipped":
        assert "label" in result.warnings[0] or "bundle" in result.warnings[0]


def test_its_entry_fits_the_published_schema(name):
    schema = json.loads(files("embedkit.evaluate").joinpath("report.schema.json").read_text())
    report = evaluate(context(PerfectEmbedder(SOURCE)), (name,))
    Draft202012Validator(schema).validate(report.to_dict())


def test_every_number_is_explained_in_the_report(name):
    given = context(PerfectEmbedder(SOURCE))
    names = tasks.get(name)().metric_names(given) or tasks.get(name)().run(given).metrics
    assert [metric for metric in names if not term_of(metric)] == []
    assert name in ABOUT
