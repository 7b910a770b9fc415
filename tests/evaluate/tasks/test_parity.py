from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.parity import ParityOfRuntimes
from embedkit.runtime.local import load

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
    assert {name.split(".")[0] for name in result.metrics} == {"torch_vs_served"}
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
