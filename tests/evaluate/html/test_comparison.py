"""The page that compares two models."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit.cli.eval import command
from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Options
from embedkit.evaluate.html import render_comparison
from embedkit.evaluate.html.flips import find_flips
from embedkit.evaluate.measurement.comparison import compare_reports, read_report
from embedkit.evaluate.report import Subject, write_report
from embedkit.evaluate.run import evaluate
from embedkit.testing import PerfectEmbedder


class Noisy(PerfectEmbedder):
    """Knows the classes, but for noise."""

    def __init__(self, source, seed, noise):
        super().__init__(source)
        self.seed, self.noise = seed, noise

    def embed(self, images):
        rng = np.random.default_rng([self.seed, len(images)])
        z = super().embed(images)
        noisy = z + self.noise * rng.normal(size=z.shape)
        return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def reports(make_context, source, tmp_path):
    """A noisy model, and a better one of a name that is no harmless text."""
    found = []
    for name, noise in (("rough", 0.9), ("<b>fine</b>", 0.3)):
        context = make_context(
            served=Noisy(source, 1, noise), options=Options(detectors=("knn",))
        )
        folder = tmp_path / f"run{noise}"
        write_report(evaluate(context, ("knn", "ood"), subject=Subject(name, "1")), folder)
        found.append(read_report(folder))
    return found


def test_the_page_says_who_is_better_and_links_every_number(reports, make_context):
    found = compare_reports(*reports)
    page = render_comparison(
        *reports, found=found, flips=find_flips(*reports, test=make_context().test)
    )
    assert "B is better" in page
    assert "<b>fine</b>" not in page
    assert "&lt;b&gt;fine&lt;/b&gt;" in page
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = re.findall(r'href="#([^"]+)"', page)
    assert set(links) <= anchors
    d = found.differences["knn.predictions_k20"]
    for text in (f"{d.value:+.4f}", f">{d.only_second}<", "halves.knn.auroc"):
        assert text in page
    # No script, and nothing from elsewhere.
    assert not re.search(r"<script|https?://|@import", page)
    assert "default-src 'none'" in page


def test_flips_are_the_images_that_one_model_alone_has_right(reports, make_context):
    test = make_context().test
    (flips,) = find_flips(*reports, test=test)
    items = [np.load(r.path.parent / "items" / "knn.npz") for r in reports]
    name = flips.name.removeprefix("knn.")
    right = [i[name] == i["labels"] for i in items]
    only_second = np.flatnonzero(right[1] & ~right[0])
    assert flips.won == len(only_second) > 0
    assert [f.id for f in flips.only_second] == [test.ids[i] for i in only_second[:16]]
    shown = flips.only_second[0]
    assert shown.label == test.class_names[test.labels[only_second[0]]]
    assert shown.wrong == test.class_names[items[0][name][only_second[0]]]


@pytest.mark.parametrize("index", [-1, 4])
def test_a_class_that_the_test_set_does_not_have_is_another_class(reports, make_context, index):
    test = make_context().test
    assert len(test.class_names) == 4
    path = reports[0].path.parent / "items" / "knn.npz"
    with np.load(path) as archive:
        items = dict(archive)
    items["predictions_k20"][:] = index
    np.savez_compressed(path, **items)
    (flips,) = find_flips(*(read_report(report.path) for report in reports), test=test)
    assert {flip.wrong for flip in flips.only_second} == {"another class"}
    assert {flip.label for flip in flips.only_second} <= {*test.class_names}


def test_classes_in_another_order_are_the_same_images(reports, make_context):
    test = make_context().test
    turned = Dataset(
        test.name, test.images, 3 - np.asarray(test.labels), tuple(reversed(test.class_names))
    )
    assert find_flips(*reports, test=turned) == find_flips(*reports, test=test)


def test_other_images_are_refused(reports, source):
    with pytest.raises(InvalidInput, match="give the --test of the evaluation"):
        find_flips(*reports, test=source.dataset(80, seed=9, name="test"))


def test_the_command_writes_the_page(reports, make_context, tmp_path):
    test = make_context().test
    np.savez(
        tmp_path / "test.npz",
        images=test.images,
        labels=test.labels,
        classes=np.array(test.class_names),
    )
    paths = [str(r.path) for r in reports]
    page = tmp_path / "page.html"
    images = str(tmp_path / "test.npz")
    done = CliRunner().invoke(
        command, ["compare", *paths, "--html", str(page), "--images", images]
    )
    assert done.exit_code == 0, done.output
    assert "Only B is right" in page.read_text()
    done = CliRunner().invoke(command, ["compare", *paths, "--images", images])
    assert isinstance(done.exception, InvalidInput)
