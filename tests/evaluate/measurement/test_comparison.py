import json

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit.cli.eval import command
from embedkit.errors import EmbedkitError, InvalidInput, NotFound
from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.comparison import (
    compare_reports,
    read_report,
    spread_of_reports,
)
from embedkit.evaluate.report import write_report
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.statistics import mcnemar, paired_auroc
from embedkit.testing import PerfectEmbedder

SUITE = ("knn", "ood")


class Noisy(PerfectEmbedder):
    """Knows the classes, but for noise that depends on its seed."""

    seed = 0

    def embed(self, images):
        rng = np.random.default_rng([self.seed, len(images)])
        z = super().embed(images)
        noisy = z + 0.9 * rng.normal(size=z.shape)
        return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def write(make_context, source, tmp_path):
    """Evaluate a noisy model and write its report."""

    def write(seed, **fields):
        served = Noisy(source)
        served.seed = seed
        context = make_context(served=served, options=Options(detectors=("knn",)), **fields)
        folder = tmp_path / f"run{seed}"
        write_report(evaluate(context, SUITE), folder)
        return folder

    return write


def test_every_task_is_compared_by_its_own_test(write):
    reports = [read_report(write(seed)) for seed in (1, 2)]
    found = compare_reports(*reports).differences
    items = [np.load(r.path.parent / "items" / "knn.npz") for r in reports]
    right = [i["predictions_k20"] == i["labels"] for i in items]
    assert found["knn.predictions_k20"] == mcnemar(*right)
    values = [r.results["knn"]["metrics"]["top1"]["value"] for r in reports]
    assert found["knn.predictions_k20"].first == values[0]
    assert found["knn.predictions_k20"].second == values[1]
    scores = [np.load(r.path.parent / "items" / "ood.npz") for r in reports]
    pair = [(s["knn.known"], s["knn.halves"]) for s in scores]
    assert found["ood.halves.knn.auroc"] == paired_auroc(*pair)
    assert not any("raw_pixels" in name for name in found)


def test_a_report_against_itself_differs_in_nothing(write):
    report = read_report(write(1))
    found = compare_reports(report, report).differences
    assert {d.value for d in found.values()} == {0.0}
    assert {d.p_value for d in found.values()} == {1.0}


def test_a_mean_over_items_is_recognised_by_its_value(tmp_path):
    reports = []
    for name, values in (("a", [0.0, 1, 1]), ("b", [1.0, 1, 1])):
        folder = tmp_path / name
        (folder / "items").mkdir(parents=True)
        np.savez(folder / "items" / "retrieval.npz", ap=np.array(values), other=np.ones(3))
        metrics = {
            k: {"value": v, "ci": None} for k, v in (("ap", np.mean(values)), ("other", 9))
        }
        report = {
            "data": {"test": {"digest": "x"}, "ood": {}},
            "results": [{"task": "retrieval", "metrics": metrics}],
            "items": {"retrieval": "items/retrieval.npz"},
        }
        (folder / "report.json").write_text(json.dumps(report))
        reports.append(read_report(folder))
    found = compare_reports(*reports).differences
    assert list(found) == ["retrieval.ap"]
    assert found["retrieval.ap"].value == pytest.approx(1 / 3)


def test_other_test_images_are_no_comparison(write, source):
    first = read_report(write(1))
    other = read_report(write(2, test=source.dataset(80, seed=77, name="test")))
    with pytest.raises(InvalidInput, match="over the same test images"):
        compare_reports(first, other)
    novel = read_report(write(3, ood={"halves": source.novel(61)}))
    assert compare_reports(first, novel).skipped == {"ood": "the reports have other OOD sets"}


def test_what_is_no_report(tmp_path):
    with pytest.raises(NotFound, match="expected a report at"):
        read_report(tmp_path)
    for text in ("", "[]", "{}", '{"results": 3}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InvalidInput, match="expected a report of embedkit eval"):
            read_report(tmp_path)


def test_items_lie_beside_the_report(write):
    folder = write(1)
    values = json.loads((folder / "report.json").read_text())
    values["items"]["knn"] = "../../etc/x.npz"
    (folder / "report.json").write_text(json.dumps(values))
    report = read_report(folder)
    with pytest.raises(InvalidInput, match="items beside"):
        compare_reports(report, report)


def test_runs_of_several_seeds_and_both_commands(write):
    folders = [str(write(seed)) for seed in (1, 2, 3)]
    found = spread_of_reports([read_report(f) for f in folders])
    values = [read_report(f).results["knn"]["metrics"]["top1"]["value"] for f in folders]
    assert found["knn.top1"].mean == pytest.approx(np.mean(values))
    assert found["knn.top1"].sd_seeds == pytest.approx(np.std(values, ddof=1))
    done = CliRunner().invoke(command, ["seeds", "--json", *folders])
    assert json.loads(done.output)["knn.top1"]["n_seeds"] == 3
    done = CliRunner().invoke(command, ["compare", "--json", *folders[:2]])
    compared = json.loads(done.output)["differences"]["knn.predictions_k20"]
    assert compared["test"] == "mcnemar_exact"
    assert compared["p_adjusted"] >= compared["p_value"]
    for arguments in (["compare", *folders[:2]], ["seeds", *folders]):
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
        assert "knn." in done.output


@pytest.fixture
def bare(tmp_path):
    """Write a report that has one task with one array and its mean."""

    def bare(name, task, **changes):
        folder = tmp_path / name
        (folder / "items").mkdir(parents=True)
        np.savez(folder / "items" / f"{task}.npz", ap=np.array([0.0, 1, 1]))
        entry = {"task": task, "metrics": {"ap": {"value": 2 / 3, "ci": None}}}
        report = {
            "data": {"test": {"digest": "x"}, "ood": {}},
            "model": {"digest": "sha256:m"},
            "results": [entry],
            "items": {task: f"items/{task}.npz"},
        }
        (folder / "report.json").write_text(json.dumps(report | changes))
        return str(folder)

    return bare


@pytest.mark.parametrize("words", [["compare"], ["compare", "--json"], ["seeds"]])
def test_reports_without_a_task_in_common_end_with_1(bare, words):
    first, second = bare("a", "retrieval"), bare("b", "rmqm")
    done = CliRunner().invoke(command, [*words, first, second])
    assert isinstance(done.exception, EmbedkitError)
    assert done.exception.exit_code == 1
    message = str(done.exception)
    assert f"retrieval: only {first}/report.json has it" in message
    assert f"rmqm: only {second}/report.json has it" in message
    assert done.stdout == ""


def test_a_task_that_only_one_report_has_is_named(write, bare):
    both = read_report(write(1)), read_report(write(2))
    more = dict(both[1].values)
    more["results"] = [*more["results"], {"task": "rmqm", "metrics": {}}]
    (both[1].path).write_text(json.dumps(more))
    paths = [str(report.path) for report in both]
    done = CliRunner().invoke(command, ["compare", *paths])
    assert done.exit_code == 0
    assert f"rmqm: only {paths[1]} has it" in done.stdout
    done = CliRunner().invoke(command, ["seeds", *paths])
    assert done.exit_code == 0
    assert f"rmqm: only {paths[1]} has it" in done.stderr


def test_a_report_beside_itself_is_noted(bare):
    first, copy = bare("a", "retrieval"), bare("copy", "retrieval")
    other = bare("other", "retrieval", model={"digest": "sha256:other"})
    for second, noted in ((first, True), (copy, True), (other, False)):
        done = CliRunner().invoke(command, ["compare", "--json", first, second])
        assert ("about the same model with the same results" in done.stderr) == noted
        assert list(json.loads(done.stdout)["differences"]) == ["retrieval.ap"]


def test_the_page_makes_its_folder_or_says_why_not(write, tmp_path):
    pytest.importorskip("embedkit.evaluate.html")
    paths = [str(write(1)), str(write(2))]
    page = tmp_path / "new" / "folder" / "page.html"
    assert CliRunner().invoke(command, ["compare", *paths, "--html", str(page)]).exit_code == 0
    assert page.stat().st_size > 1000
    within = page / "page.html"
    done = CliRunner().invoke(command, ["compare", *paths, "--html", str(within)])
    assert isinstance(done.exception, EmbedkitError)
    assert done.exception.exit_code == 1
    assert f"expected a place to write the page to (--html), got {within}" in str(
        done.exception
    )
