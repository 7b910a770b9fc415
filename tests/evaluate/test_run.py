import json
import re
import zlib

import numpy as np
import pytest

from embedkit.errors import InvalidInput, ModelChanged, Unavailable
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.gate import parse_gate
from embedkit.evaluate.report import Subject
from embedkit.evaluate.run import DEFAULT_SUITE, evaluate
from embedkit.evaluate.task import tasks
from embedkit.runtime.features import FeatureCache
from embedkit.testing import PerfectEmbedder

SUITE = ("knn", "classify", "ood")


class Failing(PerfectEmbedder):
    """Answers ``good`` calls, and then fails with an error of the test's choice."""

    def __init__(self, source, good, error):
        super().__init__(source)
        self.good, self.error = good, error

    def embed(self, images):
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().embed(images)


class Swapped(PerfectEmbedder):
    """Has another digest once it was asked ``after`` times, as a restarted server may."""

    after = 2

    def embed(self, images):
        self.after -= 1
        if self.after < 0:
            self.digest = "sha256:other"
        return super().embed(images)


def status(report):
    return {result.task: result.status for result in report.results}


def test_a_good_run(make_context):
    subject = Subject("toy", "3", "grpc", "localhost:1")
    gates = [parse_gate("knn.top1>=1", SUITE), parse_gate("ood.halves.knn.auroc>0.9", SUITE)]
    report = evaluate(make_context(), SUITE, subject=subject, gates=gates)
    assert report.is_valid
    assert status(report) == dict.fromkeys(SUITE, "ok")
    assert tuple(report.timing) == SUITE
    assert [gate.passed for gate in report.gates] == [True, True]
    assert report.exit_code == 0
    assert report.model["name"] == "toy"


def test_the_default_suite_names_tasks():
    assert set(DEFAULT_SUITE) <= set(tasks.names())


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (("knnn",), "did you mean 'knn'"),
        (("knn", "knn"), "expected each task once"),
        ((), "at least one"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_runs(make_context, perfect, suite, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(make_context(), suite)
    assert perfect.usage.calls == 0


def test_a_task_that_fails_costs_only_itself(make_context, source):
    # kNN asks for train and test, which are cached then; ood needs a third set.
    served = Failing(source, 2, Unavailable("server gone"))
    report = evaluate(make_context(served=served), SUITE)
    assert status(report) == {"knn": "ok", "classify": "ok", "ood": "ok"}
    ood = report.results[2]
    assert any("server gone" in warning for warning in ood.warnings)
    assert "halves.served.auroc" in ood.metrics
    assert not report.is_valid
    assert "could not be asked for its digest" in report.problems[0]
    assert report.exit_code == 1


def test_a_defect_is_recorded_with_its_kind(make_context, source, caplog):
    served = Failing(source, 0, ZeroDivisionError("oops"))
    report = evaluate(make_context(served=served), ("knn",))
    assert report.results[0].warnings == ("ZeroDivisionError: oops",)
    assert "task knn failed" in caplog.text
    assert "ZeroDivisionError('oops')" in report.problems[0]


def test_a_model_that_changes_ends_the_run(make_context, source):
    served = Failing(source, 1, ModelChanged("digest b"))
    report = evaluate(make_context(served=served), SUITE)
    assert status(report) == dict.fromkeys(SUITE, "failed")
    assert report.problems == ("the served model changed during 'knn': digest b",)
    assert report.exit_code == 1


def test_a_digest_that_changed_quietly_is_noticed_at_the_end(make_context, source):
    report = evaluate(make_context(served=Swapped(source)), ("knn",))
    assert status(report) == {"knn": "ok"}
    assert re.search("changed from sha256:.* to sha256:other", report.problems[0])
    assert report.exit_code == 1


def test_an_interrupt_keeps_what_was_done(make_context, source):
    # The second task asks for nothing new but the novel images.
    served = Failing(source, 2, KeyboardInterrupt())
    report = evaluate(make_context(served=served), ("knn", "ood", "linear"))
    assert status(report) == {"knn": "ok", "ood": "failed", "linear": "failed"}
    assert report.results[0].metrics["top1"].value == 1
    assert report.problems == ("interrupted during 'ood'",)


def test_results_do_not_depend_on_the_order_of_the_suite(make_context):
    first, second = (evaluate(make_context(), s) for s in (SUITE, SUITE[::-1]))
    assert [r.to_dict() for r in first.results] == [r.to_dict() for r in second.results[::-1]]


def test_a_second_run_from_the_cache_asks_for_nothing_and_finds_the_same(source, tmp_path):
    suite = ("knn", "few_shot", "calibration", "geometry", "invariance", "rmqm", "corruption")
    options = Options(shots=(1,), shot_draws=2, view_images=20, corruption_images=20)
    found = []
    for _ in range(2):
        served = PerfectEmbedder(source)
        context = Context(
            served,
            source.dataset(120, name="train"),
            source.dataset(40, seed=1, name="test"),
            options=options,
            cache=FeatureCache(tmp_path),
        )
        report = evaluate(context, suite)
        assert all(result.status == "ok" for result in report.results)
        found.append((json.dumps(report.to_dict()["results"]), served.usage.images))
    assert found[0][0] == found[1][0]
    # Classes are scored anew, and the digest is read again; nothing is embedded a second time.
    assert found[1][1] <= 40 + 1 < found[0][1]


def test_results_do_not_depend_on_the_order_of_the_images(make_context, source):
    suite = ("knn", "classify", "linear", "centroid", "naive_bayes", "ood", "calibration")
    rng = np.random.default_rng(3)
    given = {
        "train": source.dataset(120, name="train"),
        "test": source.dataset(60, seed=1, name="test"),
        "ood": source.novel(40),
    }
    shuffled = {role: d.subset(rng.permutation(len(d))) for role, d in given.items()}
    found = []
    for sets in (given, shuffled):
        served = Unsure(source)
        context = make_context(
            served=served, train=sets["train"], test=sets["test"], ood={"halves": sets["ood"]}
        )
        report = evaluate(context, suite)
        assert all(result.status == "ok" for result in report.results)
        found.append(
            {f"{r.task}.{name}": m for r in report.results for name, m in r.metrics.items()}
        )
    first, second = found
    assert 0.3 < first["knn.top1"].value < 1
    for name, metric in first.items():
        assert second[name].value == pytest.approx(metric.value, abs=1e-6), name
        # A sum in another order differs in its last bit, and that draws other resamples.
        exact = metric.ci_method in ("wilson", "clopper_pearson", "delong")
        assert second[name].ci == pytest.approx(metric.ci, abs=1e-6 if exact else 0.05), name


class Unsure(PerfectEmbedder):
    """Knows the classes, but for noise that depends on each image's own pixels."""

    def embed(self, images):
        z = super().embed(images)
        seeds = [zlib.crc32(np.ascontiguousarray(image)) for image in images]
        noise = [np.random.default_rng(seed).normal(size=z.shape[1]) for seed in seeds]
        noisy = z + 0.9 * np.stack(noise)
        return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
