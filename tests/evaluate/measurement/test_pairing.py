"""Two reports are paired by image, whatever images each run looked at."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit.cli.eval import command
from embedkit.errors import InvalidInput
from embedkit.evaluate.html import render_comparison
from embedkit.evaluate.measurement.comparison import (
    compare_reports,
    read_report,
    spread_of_reports,
)
from embedkit.evaluate.statistics import paired_mean

IDS = np.array([f"{i:02}.png" for i in range(40)])


@pytest.fixture
def write(tmp_path):
    """Write a report of one task with these arrays and metrics."""

    def write(name, task, items, metrics=(), *, ood=(), shifted=(), n=40, **changes):
        folder = tmp_path / name
        (folder / "items").mkdir(parents=True)
        np.savez(folder / "items" / f"{task}.npz", **items)
        report = {
            "status": "valid",
            "model": {"digest": name},
            "data": {
                "train": {"digest": "train", "n": 90},
                "test": {"digest": "test", "n": n, "name": "digits"},
                "ood": {key: {"digest": digest} for key, digest in dict(ood).items()},
                "shifted": {key: {"digest": digest} for key, digest in dict(shifted).items()},
            },
            "run": {"seed": 0, "options": {"attack_images": 40}},
            "results": [{"task": task, "metrics": dict(metrics)}],
            "items": {task: f"items/{task}.npz"},
        }
        (folder / "report.json").write_text(json.dumps(report | changes))
        return read_report(folder)

    return write


def metric(value, higher_is_better=True, ci=None):
    return {"value": value, "ci": ci, "higher_is_better": higher_is_better}


def wrong(first, count):
    """``count`` images from the ``first`` one on are wrong."""
    return (np.arange(40) >= first) & (np.arange(40) < first + count)


ERRORS = ("corruption", "blur.3.wrong"), ("corruption", "clean_wrong"), ("risk", "wrong_test")


@pytest.mark.parametrize(("task", "name"), ERRORS)
def test_more_errors_are_worse_in_the_table_the_values_and_the_page(write, task, name):
    reports = [
        write(which, task, {"ids": IDS, name: wrong(*errors)})
        for which, errors in (("few", (0, 2)), ("many", (1, 30)))
    ]
    found = compare_reports(*reports)
    d = found.differences[f"{task}.{name}"]
    assert (d.first, d.second, d.n) == (2 / 40, 30 / 40, 40)
    # A alone has 29 images right that B has wrong, B alone the first.
    assert (d.only_first, d.only_second) == (29, 1)
    assert not d.higher_is_better
    assert d.better(d.p_value) == "A"
    page = render_comparison(*reports, found=found)
    assert "<h1>A is better</h1>" in page
    paths = [str(report.path) for report in reports]
    done = CliRunner().invoke(command, ["compare", "--json", *paths])
    (values,) = json.loads(done.stdout)["differences"].values()
    assert (values["better"], values["higher_is_better"]) == ("A", False)
    assert values["only_first"] == 29
    row = CliRunner().invoke(command, ["compare", *paths]).stdout.splitlines()[3]
    assert [part.strip() for part in row.split("│")][8] == "A"


def test_a_mean_has_the_direction_of_its_metric(write):
    reports = []
    for name, values in (("near", np.linspace(0, 0.1, 40)), ("far", np.linspace(0.5, 0.9, 40))):
        metrics = {"blur.3.drift": metric(values.mean(), False)}
        reports.append(write(name, "corruption", {"blur.3.drift": values}, metrics))
    d = compare_reports(*reports).differences["corruption.blur.3.drift"]
    assert not d.higher_is_better
    assert d.better(d.p_value) == "A"


def attacked(handled, fooled, index=None, **more):
    """Items of the task robustness: the images in ``fooled`` are lost to the attack."""
    handled, index = (
        np.array(handled, bool),
        np.arange(len(handled)) if index is None else index,
    )
    success = np.isin(index[handled], list(fooled))
    return {"index": index, "handled": handled, "square.8.success": success, **more}


def test_attacks_are_paired_by_image_where_other_images_were_attacked(write):
    """A handles all but the last image, B all but the first; both lose image 3 only."""
    reports = [
        write(name, "robustness", attacked([i != lost for i in range(6)], {3}))
        for name, lost in (("a", 5), ("b", 0))
    ]
    found = compare_reports(*reports).differences
    d = found["robustness.square.8.accuracy"]
    assert (d.n, d.first, d.second) == (6, 4 / 6, 4 / 6)
    assert (d.only_first, d.only_second) == (1, 1)
    assert d.higher_is_better


def test_models_that_handle_other_numbers_of_images_are_compared(write):
    reports = []
    shift = np.arange(40) / 100
    for name, count in (("a", 40), ("b", 30)):
        handled = np.arange(40) < count
        own = shift[handled] + (0.1 if name == "b" else 0)
        items = attacked(handled, {0, 1}, **{"square.8.cosine_shift": own})
        metrics = {"square.8.cosine_shift": metric(own.mean(), False)}
        reports.append(write(name, "robustness", items, metrics))
    found = compare_reports(*reports).differences
    standing = found["robustness.square.8.accuracy"]
    assert (standing.n, standing.only_first, standing.only_second) == (40, 10, 0)
    moved = found["robustness.square.8.cosine_shift"]
    assert moved.p_value == paired_mean(shift[:30], shift[:30] + 0.1).p_value
    assert (moved.n, moved.value) == (30, pytest.approx(0.1))
    assert not moved.higher_is_better


def test_other_choices_of_images_are_paired_by_id(write):
    reports = []
    for name, rows in (("a", np.arange(30)), ("b", np.arange(39, 9, -1))):
        items = {"ids": IDS[rows], "blur.3.wrong": rows % 2 == 0}
        run = {"seed": 0 if name == "a" else 1, "options": {"attack_images": 40}}
        reports.append(write(name, "corruption", items, run=run))
    found = compare_reports(*reports)
    d = found.differences["corruption.blur.3.wrong"]
    assert (d.n, d.only_first, d.only_second) == (20, 0, 0)
    assert any("other seeds (0, 1)" in note for note in found.notes)
    assert "corruption: 20 images are in both reports, of 30 and 30 (ids)" in found.notes


def test_what_does_not_say_its_images_is_refused_for_other_seeds(write):
    items = {"wrong_held_out": wrong(0, 4), "wrong_test": wrong(0, 9)}
    reports = [
        write(name, "risk", items, run={"seed": seed, "options": {}})
        for name, seed in (("a", 0), ("b", 1), ("c", 0))
    ]
    found = compare_reports(*reports[:2])
    assert list(found.differences) == ["risk.wrong_test"]
    assert "other seeds" in found.skipped["risk.wrong_held_out"]
    assert len(compare_reports(reports[0], reports[2]).differences) == 2


def test_what_sets_reports_apart_is_noted_everywhere(write):
    items = {"ids": IDS, "blur.3.wrong": wrong(0, 9)}
    first = write("a", "corruption", items)
    options = {"attack_images": 20}
    second = write(
        "b",
        "corruption",
        items,
        run={"seed": 0, "options": options},
        status="invalid",
        problems=["the served model changed"],
    )
    found = compare_reports(first, second)
    assert len(found.notes) == 2
    assert "is invalid" in found.notes[0]
    assert "the served model changed" in found.notes[0]
    assert "attack_images (40, 20)" in found.notes[1]
    page = render_comparison(first, second, found)
    paths = [str(first.path), str(second.path)]
    for words in (["compare"], ["compare", "--json"]):
        done = CliRunner().invoke(command, [*words, *paths])
        assert all(f"note: {note}" in done.stderr for note in found.notes)
    assert json.loads(done.stdout)["notes"] == list(found.notes)
    assert all(note in page for note in found.notes)


SETS = {
    "ood": ("photos.knn.auroc", "near_mean.knn.auroc", "full_spectrum.photos.knn.auroc"),
    "transfer": ("photos.knn",),
    "drift": ("photos.mmd.alarms",),
    "parity": ("torch_vs_local.photos.auroc_change",),
}


@pytest.mark.parametrize("task", SETS)
def test_runs_with_other_images_under_one_name_are_not_averaged(write, task):
    metrics = {name: metric(0.5) for name in (*SETS[task], "plain.knn")}
    reports = [
        write(name, task, {}, metrics, ood={"photos": digest})
        for name, digest in (("a", "one"), ("b", "other"), ("c", "one"))
    ]
    assert list(spread_of_reports(reports[:2])) == [f"{task}.plain.knn"]
    assert len(spread_of_reports(reports[::2])) == len(metrics)
    done = CliRunner().invoke(command, ["seeds", *(str(r.path) for r in reports[:2])])
    assert "photos: the reports have other images under this name" in done.stderr


def test_a_shifted_set_is_on_the_known_side_of_every_full_spectrum(write):
    about = ("shifted.blurred.knn.auroc", "full_spectrum.photos.knn.auroc")
    others = ("photos.knn.auroc", "shifted.dark.knn.auroc")
    reports = [
        write(
            name,
            "ood",
            {},
            {key: metric(0.5) for key in (*about, *others)},
            ood={"photos": "one"},
            shifted={"blurred": digest, "dark": "same"},
        )
        for name, digest in (("a", "one"), ("b", "other"), ("c", "one"))
    ]
    assert list(spread_of_reports(reports[:2])) == [f"ood.{name}" for name in others]
    assert len(spread_of_reports(reports[::2])) == 4
    done = CliRunner().invoke(command, ["seeds", *(str(r.path) for r in reports[:2])])
    assert "shifted.blurred: the reports have other images under this name" in done.stderr


def test_a_report_of_before_shifted_sets_were_named_can_be_read(write):
    report = write("a", "ood", {}, {"photos.knn.auroc": metric(0.5)}, ood={"photos": "one"})
    data = {key: value for key, value in report.values["data"].items() if key != "shifted"}
    report.path.write_text(json.dumps(dict(report.values) | {"data": data}))
    assert read_report(report.path).shifted == {}


def test_one_run_given_twice_is_no_spread(write):
    report = write("a", "knn", {}, {"top1": metric(0.5)})
    with pytest.raises(InvalidInput, match="give each run once"):
        spread_of_reports([report, report])
    copy = write("copy", "knn", {}, {"top1": metric(0.5)}, model={"digest": "a"})
    with pytest.raises(InvalidInput, match="give each run once"):
        spread_of_reports([report, copy])


def test_damaged_items_and_reports_are_told_in_words(write):
    report = write("a", "corruption", {"ids": IDS, "blur.3.wrong": wrong(0, 9)})
    items = report.path.parent / "items" / "corruption.npz"
    whole = items.read_bytes()
    for content in (whole[: len(whole) // 2], b"PK\x03\x04", b""):
        items.write_bytes(content)
        with pytest.raises(InvalidInput, match="expected arrays of 'corruption'"):
            compare_reports(report, report)
    for change in (
        {"results": [{"task": "knn"}]},
        {"data": {"test": {"digest": "x"}}},
        {"run": 3},
    ):
        report.path.write_text(json.dumps(dict(report.values) | change))
        with pytest.raises(InvalidInput, match="expected a report of embedkit eval"):
            read_report(report.path)


def test_a_report_that_does_not_tell_its_run_is_read(write):
    values = {"data": {"test": {"digest": "test"}, "ood": {}}, "run": {}}
    items = {"ids": IDS, "blur.3.wrong": wrong(0, 9)}
    reports = [write(name, "corruption", items, **values) for name in "ab"]
    assert list(compare_reports(*reports).differences) == ["corruption.blur.3.wrong"]
