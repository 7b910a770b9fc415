import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.pixels.views import VIEWS
from embedkit.evaluate.tasks.invariance import Invariance

OPTIONS = Options(view_images=30)


class Columns:
    """Embeds the mean of each column: blind to vertical moves, and to nothing else."""

    dim, digest = 8, "sha256:columns"

    def __init__(self, source):
        self.input = source.spec

    def embed(self, images):
        z = np.asarray(images).astype(np.float32).mean(axis=(1, 3)) - 128
        return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-6)


def test_a_flip_is_seen_by_who_looks_at_columns(make_context, source):
    served = Columns(source)
    context = make_context(served=served, options=OPTIONS)
    result = Invariance().run(context)
    ids = result.items["ids"].astype(int)
    images = context.test.images[ids]
    before, after = served.embed(images), served.embed(images[:, :, ::-1])
    cosines = (before * after).sum(axis=1)
    np.testing.assert_allclose(result.items["flip.cosine"], cosines, atol=1e-5)
    assert result.metrics["flip.cosine"].value == pytest.approx(cosines.mean(), abs=1e-6)
    nearest = (after @ before.T).argmax(axis=1)
    assert result.metrics["flip.found"].value == np.mean(nearest == np.arange(30))


def test_every_change_is_measured(make_context, noisy):
    result = Invariance().run(make_context(served=noisy, options=OPTIONS))
    for change in VIEWS:
        kept = result.metrics[f"{change}.kept"].value
        right = result.items[f"{change}.predictions"] == result.items["labels"]
        assert result.metrics[f"{change}.top1"].value == right.mean()
        assert 0 <= kept <= 1
    assert result.cost == {"images": 30 * (len(VIEWS) + 1)}


def test_without_labels_decisions_are_left_out(make_context, source):
    bare = Dataset("bare", source.dataset(20).images)
    result = Invariance().run(make_context(test=bare, options=OPTIONS))
    assert "no top1 and kept" in result.warnings[0]
    assert "flip.cosine" in result.metrics
    assert "flip.top1" not in result.metrics


def test_changes_that_change_nothing_are_no_part_of_the_means(make_context, noisy):
    # Grey images are grey already, and a 64th of 8 pixels blurs nothing.
    result = Invariance().run(make_context(served=noisy, options=OPTIONS))
    assert result.warnings == (
        "mean_cosine and mean_found are without grey, blur: these left every image as it was",
    )
    counted = [change for change in VIEWS if change not in ("grey", "blur")]
    for kind in ("cosine", "found"):
        each = [result.metrics[f"{change}.{kind}"].value for change in counted]
        assert result.metrics[f"mean_{kind}"].value == pytest.approx(np.mean(each))
    assert result.metrics["grey.cosine"].value == pytest.approx(1)


def test_images_that_nothing_changes_have_no_means(make_context, monkeypatch):
    monkeypatch.setattr("embedkit.evaluate.tasks.invariance.VIEWS", {"grey": VIEWS["grey"]})
    result = Invariance().run(make_context(options=OPTIONS))
    assert "mean_cosine" not in result.metrics
    assert "without grey" in result.warnings[0]
