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
