from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedkit.bundle import write_bundle
from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.sameness.decisions import Decisions
from embedkit.evaluate.tasks.parity import ParityOfRuntimes
from embedkit.runtime.local import load
from embedkit.runtime.session import Session

SMALL = Options(parity_images=20)
PAIRS = ("torch_vs_local", "local_vs_served", "torch_vs_served")


class Shifted:
    """The session with every image's embedding turned by a fixed step."""

    def __init__(self, model, step):
        self.model, self.step = model, step
        self.dim, self.digest, self.input = model.dim, model.digest, model.input

    def embed(self, images):
        z = self.model.embed(images)
        return (
            np.roll(z, 1, axis=1) if self.step is None else (z + self.step).astype(np.float32)
        )


@pytest.fixture
def session(bundle):
    return load(bundle.path, threads=1)


def test_the_same_model_three_times(make_context, bundle, session):
    context = make_context(served=session, local=session, bundle=bundle, options=SMALL)
    result = ParityOfRuntimes().run(context)
    assert result.status == "ok"
    for pair in PAIRS:
        assert result.metrics[f"{pair}.max_abs_error"].value < 1e-5
        assert result.metrics[f"{pair}.min_cosine"].value > 1 - 1e-6
        flips = result.metrics[f"{pair}.knn_flips"]
        assert (flips.value, flips.n, flips.unit) == (0, 20, "count")
        assert flips.ci
        assert flips.ci[0] == 0 < flips.ci[1]
    assert result.metrics["local_vs_served.max_abs_error"].value == 0
    figure: Any = result.figures["error"]
    assert figure["x"] == [1, 2, 3, 8, 64]
    assert set(figure["series"]) == set(PAIRS)


def test_a_difference_is_found_and_measured(make_context, bundle, session):
    served = Shifted(session, np.float32(0.001))
    context = make_context(served=served, local=session, bundle=bundle, options=SMALL)
    metrics = ParityOfRuntimes().run(context).metrics
    assert metrics["local_vs_served.max_abs_error"].value == pytest.approx(0.001, rel=1e-3)
    assert metrics["torch_vs_served.max_abs_error"].value == pytest.approx(0.001, rel=2e-2)
    assert metrics["torch_vs_local.max_abs_error"].value < 1e-5


def test_decisions_that_flip_are_counted(make_context, bundle, session):
    context = make_context(
        served=Shifted(session, None), local=session, bundle=bundle, options=SMALL
    )
    metrics = ParityOfRuntimes().run(context).metrics
    assert metrics["local_vs_served.knn_flips"].value > 0
    assert metrics["torch_vs_local.knn_flips"].value == 0


def test_without_bundle_it_is_skipped_with_the_reason(make_context):
    result = ParityOfRuntimes().run(make_context(without_bundle="no such folder"))
    assert result.status == "skipped"
    assert result.warnings == ("expected a bundle, got none: no such folder",)


def test_without_a_session_the_torch_pair_remains(make_context, bundle, session):
    context = make_context(served=session, bundle=bundle, options=SMALL)
    result = ParityOfRuntimes().run(context)
    assert {n.split(".")[0] for n in result.metrics} == {"torch_vs_served", "torch", "served"}
    assert any(
        w.startswith("no torch_vs_local: expected a local session") for w in result.warnings
    )


def test_without_labels_there_are_numbers_and_no_decisions(
    make_context, bundle, session, source
):
    bare = Dataset("bare", source.dataset(30).images)
    context = make_context(
        served=session, local=session, bundle=bundle, options=SMALL, train=bare
    )
    result = ParityOfRuntimes().run(context)
    assert "local_vs_served.max_abs_error" in result.metrics
    assert not any("flips" in name for name in result.metrics)
    assert any(w.startswith("no knn_flips: expected labels") for w in result.warnings)


def test_files_against_pixels(make_context, bundle, session, files, source):
    test = source.dataset(24, seed=1)
    encoded = replace(test, images=files(test.images), digest="")
    context = make_context(
        served=session, local=session, bundle=bundle, options=SMALL, test=encoded
    )
    metrics = ParityOfRuntimes().run(context).metrics
    # A PNG loses nothing, so the file and its pixels are one image.
    assert metrics["files_vs_pixels.max_abs_error"].value < 1e-6
    assert metrics["files_vs_pixels.min_cosine"].n == 20


class Sociable:
    """Lets a little of the batch's mean into each embedding, as a bad quantisation may."""

    def __init__(self, model, share):
        self.model, self.share = model, share
        self.dim, self.digest, self.input = model.dim, model.digest, model.input

    def embed(self, images):
        z = self.model.embed(images)
        return (z + self.share * z.mean(axis=0)).astype(np.float32)


def test_images_that_change_with_their_company_are_found(make_context, bundle, session):
    served = Sociable(session, 0.01)
    context = make_context(served=served, local=session, bundle=bundle, options=SMALL)
    metrics = ParityOfRuntimes().run(context).metrics
    for what in ("batch_size", "batch_neighbours"):
        assert metrics[f"local.{what}.max_abs_error"].value < 1e-6
        assert metrics[f"local.{what}.knn_flips"].value == 0
        assert metrics[f"served.{what}.max_abs_error"].value > 1e-4
    # Alone, an image is its own mean: what another batch changes is the share of the rest.
    images = make_context().test.images[:2]
    one, both = (np.asarray(served.embed(images[:n])) for n in (1, 2))
    alone = session.embed(images[:1])
    expected = one - 0.01 * (alone - session.embed(images).mean(axis=0))
    assert both[:1] == pytest.approx(expected, abs=1e-6)


def test_overlap_and_area_by_hand():
    bank = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]] + 0.01 * np.eye(4, dtype=np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    decisions = Decisions(np.tile(bank, (30, 1)), np.tile([0, 0, 1, 1], 30), 2)
    axes = np.eye(4, dtype=np.float32)
    known, novel, far = axes[[0, 1, 0]], axes[[2, 3]], axes[[0, 0]]
    changes = decisions.changes(known, known[[1, 1, 0]])
    assert changes["knn_flips"].value == 1
    assert changes["neighbour_overlap"].value == pytest.approx(2 / 3)
    one, other = {"k": known, "s": novel}, {"k": known, "s": far}
    areas = decisions.area_changes(one, other, "k")
    assert areas["s.auroc_change"].value == pytest.approx(
        _area(far, known, decisions.bank) - _area(novel, known, decisions.bank)
    )
    assert areas["s.auroc_change"].value < -0.4


def _area(novel, known, bank):
    """Share of pairs in which the novel image's 50th neighbour is the farther one."""
    far, near = (
        [np.round(np.sort(np.linalg.norm(bank - row, axis=1))[49], 5) for row in rows]
        for rows in (novel, known)
    )
    return np.mean([[(b > a) + (b == a) / 2 for a in near] for b in far])


def test_another_precision_of_the_bundle_is_compared(make_context, bundle, session, tmp_path):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(bundle.graph("fp32"))
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            halved = array.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    kept = {name: bundle.read(name) for name in bundle.manifest.files}
    kept["model.fp16.onnx"] = graph.SerializeToString()
    both = write_bundle(tmp_path, bundle.manifest, kept)
    context = make_context(served=session, local=session, bundle=both, options=SMALL)
    task = ParityOfRuntimes()
    metrics = task.run(context).metrics
    error = metrics["served_vs_fp16.max_abs_error"].value
    images = context.test.images
    halves = Session(both.graph("fp16"), "halves", both.manifest.input)
    expected = np.abs(halves.embed(images) - session.embed(images)).max()
    assert 1e-6 < error <= expected + 1e-6 < 1e-2
    assert "served_vs_fp16.halves.auroc_change" in metrics
    assert set(metrics) <= set(task.metric_names(context))
