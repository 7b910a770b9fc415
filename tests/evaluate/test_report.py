import copy
import json
from dataclasses import replace
from importlib.resources import files as resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError

from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Context
from embedkit.evaluate.gate import Gate, check_gates
from embedkit.evaluate.report import Report, Subject, write_report
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.task import Metric, TaskResult
from embedkit.testing import PerfectEmbedder, SyntheticImages


@pytest.fixture(scope="module")
def schema():
    text = resources("embedkit.evaluate").joinpath("report.schema.json").read_text()
    return Draft202012Validator(json.loads(text))


@pytest.fixture(scope="module")
def context() -> Context:
    source = SyntheticImages()
    test = source.dataset(80, seed=1, name="test")
    train = source.dataset(240, name="train")
    return Context(
        PerfectEmbedder(source),
        train,
        test,
        {"halves": source.novel(60)},
        shifted={"others": source.dataset(40, seed=2, name="others")},
    )


@pytest.fixture(scope="module")
def report(context) -> Report:
    return evaluate(context, ("classify", "knn", "ood", "parity"), subject=Subject("toy", "1"))


def test_the_schema_is_a_schema(schema):
    Draft202012Validator.check_schema(schema.schema)


def test_the_schema_is_published_in_the_documents(schema, repository):
    published = (repository / "docs" / "report.schema.json").read_text()
    assert json.loads(published) == schema.schema


def test_a_report_fits_its_schema(report, schema):
    schema.validate(json.loads(json.dumps(report.to_dict(), allow_nan=False)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r["results"][0].pop("status"),
        lambda r: r["results"][0].update(seconds=1),
        lambda r: r["results"][1]["metrics"]["top1"].pop("n"),
        lambda r: r["results"][1]["metrics"]["top1"].update(ci=[0.1]),
        lambda r: r["results"][3].update(warnings=[]),
        lambda r: r.update(status="good"),
        lambda r: r["model"].pop("digest"),
        lambda r: r["data"]["ood"]["halves"].pop("digest"),
        lambda r: r["figures"]["knn"]["map"].pop("x"),
        lambda r: r["figures"]["knn"]["map"].update(kind="pie"),
        lambda r: r.update(extra=1),
    ],
)
def test_the_schema_refuses_what_is_no_report(report, schema, spoil):
    values = copy.deepcopy(report.to_dict())
    spoil(values)
    with pytest.raises(ValidationError):
        schema.validate(values)


def test_it_says_what_was_measured(report, context):
    values = report.to_dict()
    assert values["model"] == {
        "name": "toy",
        "version": "1",
        "transport": "in-process",
        "address": "",
        "provider": "",
        "precision": "",
        "digest": context.served.digest,
        "dim": 5,
        "input": context.spec.to_dict(),
    }
    assert values["data"]["train"]["digest"] == context.train.digest
    assert values["data"]["shifted"]["others"]["digest"] == context.shifted["others"].digest
    assert values["data"]["ood"]["halves"] == {
        "name": "novel",
        "n": 60,
        "digest": context.ood["halves"].digest,
        "class_names": [],
        "skipped": 0,
    }
    assert values["run"]["code"]["digest"].startswith("sha256:")
    assert values["run"]["options"]["attack_images"] == 200


def test_one_entry_per_task_with_exactly_these_keys(report):
    results = report.to_dict()["results"]
    assert [entry["task"] for entry in results] == ["classify", "knn", "ood", "parity"]
    keys = {"task", "metrics", "baselines", "cost", "status", "warnings"}
    assert all(set(entry) == keys for entry in results)
    metric = {"value", "ci", "n", "unit", "higher_is_better", "ci_method"}
    assert set(results[1]["metrics"]["top1"]) == metric


def test_every_metric_can_be_computed_again_from_the_items(report, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    write_report(report, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    found = {entry["task"]: entry["metrics"] for entry in values["results"]}
    with np.load(tmp_path / "out" / values["items"]["knn"], allow_pickle=False) as items:
        for k, name in ((20, "top1"), (1, "top1_k1")):
            share = np.mean(items[f"predictions_k{k}"] == items["labels"])
            assert share == found["knn"][name]["value"]
    with np.load(tmp_path / "out" / values["items"]["ood"], allow_pickle=False) as items:
        wins = items["knn.halves"][:, None] > items["knn.known"][None]
        assert wins.mean() == found["ood"]["halves.knn.auroc"]["value"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_writing_again_replaces(report, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    for _ in range(2):
        write_report(report, tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["items", "junit.xml", "report.html", "report.json"]


def test_writing_a_smaller_report_removes_the_items_of_the_larger_one(report, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    write_report(report, tmp_path)
    items = tmp_path / "items"
    assert sorted(p.stem for p in items.iterdir()) == ["classify", "knn", "ood"]
    (items / "mine.npz").write_bytes(b"of somebody else")
    write_report(replace(report, results=report.results[:2]), tmp_path)
    assert sorted(p.stem for p in items.iterdir()) == ["classify", "knn", "mine"]


def test_a_gate_on_a_metric_that_is_not_finite_can_be_written(report, schema, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    results = (TaskResult("knn", {"top1": Metric(float("nan"), None, 3)}),)
    gates = check_gates([Gate("knn", "top1", ">=", 0.9)], results)
    write_report(replace(report, results=results, gates=gates), tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    schema.validate(values)
    assert values["gates"][0]["value"] is None


def test_a_report_that_cannot_be_written_leaves_the_one_before_it(report, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    write_report(report, tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    knn = replace(report.results[1], items={"labels": np.zeros(3)})
    unwritable = replace(knn, cost={"images": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(replace(report, results=(unwritable,)), tmp_path)
    objects = replace(report.results[2], items={"labels": np.zeros(3), "x": Unwritable()})
    with pytest.raises(InvalidInput):
        write_report(replace(report, results=(knn, objects)), tmp_path)
    assert {path: path.read_bytes() for path in files} == before


class Unwritable:
    """No array, and nothing becomes one of it, as on a full disk."""

    def __array__(self, dtype=None, copy=None):
        raise InvalidInput("expected an array, got a full disk")


@pytest.mark.parametrize("text", ["", "[]", '{"items": {"../mine": "x"}}', '{"items": [3]}'])
def test_what_is_no_earlier_report_costs_nothing(report, tmp_path, text):
    pytest.importorskip("embedkit.evaluate.html")
    (tmp_path / "report.json").write_text(text)
    (tmp_path / "mine.npz").write_bytes(b"of somebody else")
    write_report(replace(report, results=report.results[:1]), tmp_path)
    assert (tmp_path / "mine.npz").is_file()


def test_values_that_are_not_finite_become_null(report):
    metric = Metric(float("nan"), (0.0, float("inf")), 3)
    assert metric.to_dict()["value"] is None
    assert metric.to_dict()["ci"] == [0.0, None]


@pytest.mark.parametrize(
    ("status", "problems", "code"),
    [("ok", (), 0), ("failed", (), 1), ("ok", ("changed",), 1), ("skipped", (), 1)],
)
def test_exit_code(status, problems, code):
    result = TaskResult("knn", status=status, warnings=("why",))
    assert Report({}, {}, {}, (result,), problems=problems).exit_code == code


def test_one_measured_task_is_enough():
    results = TaskResult("knn"), TaskResult("ood", status="skipped", warnings=("why",))
    assert Report({}, {}, {}, results).exit_code == 0
