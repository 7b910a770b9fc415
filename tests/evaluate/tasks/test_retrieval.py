"""Against loops over a ranking made here, and through a real server's Search."""

import numpy as np
import pytest

import embedkit
from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.tasks.retrieval import Retrieval, Retriever
from embedkit.serve.server import running_server

EXACT = "exact search over its embeddings"


class Noisy:
    """Unit vectors of the brightness, which is the class, and of a lot of noise."""

    dim = 6
    digest = "sha256:noisy"

    def __init__(self, source):
        self.input = source.spec
        self._map = np.random.default_rng(0).normal(size=(64, 4)) / 80

    def embed(self, images):
        flat = np.asarray(images).reshape(len(images), -1).astype(float)
        level = flat.mean(axis=1, keepdims=True)
        angle = np.pi * level / 255
        z = np.concatenate([np.cos(angle), np.sin(angle), (flat - level) @ self._map], axis=1)
        return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


class Missing(Noisy):
    """Has collections whose search finds only every other image, the nearest ones first."""

    def retrieve(self, stored, queries, k):
        cosines = self.embed(queries) @ self.embed(stored).T
        rows = np.argsort(-cosines, axis=1)[:, ::2]
        return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def loops(context):
    """MAP, MAP@R and precision at 5, written as loops over one query after the other."""
    train, test = (context.embeddings("served", d) for d in (context.train, context.test))
    rows = []
    for z, label in zip(test, context.test.labels, strict=True):
        right = np.asarray(context.train.labels)[np.argsort(-(train @ z))] == label
        total = right.sum()
        places = np.flatnonzero(right) + 1
        at = np.arange(1, len(places) + 1) / places
        rows.append((at.sum() / total, at[places <= total].sum() / total, right[:5].mean()))
    return np.mean(rows, axis=0)


def test_metrics_are_those_of_the_definitions(make_context, source):
    context = make_context(served=Noisy(source))
    result = Retrieval().run(context)
    found = [result.metrics[m].value for m in ("map", "map_at_r", "precision_at_5")]
    np.testing.assert_allclose(found, loops(context), rtol=1e-9)
    assert EXACT in result.warnings[0]
    for name, metric in result.metrics.items():
        assert result.items[name].mean() == pytest.approx(metric.value)
        assert metric.ci[0] <= metric.value <= metric.ci[1]
        assert metric.n == 80


def test_a_search_that_misses_is_seen(make_context, source):
    served = Missing(source)
    assert isinstance(served, Retriever)
    result = Retrieval().run(make_context(served=served))
    # Ten found images are the first, third, ... nineteenth: five of the nearest ten.
    assert result.metrics["search_recall_at_10"].value == pytest.approx(0.5, abs=0.02)
    whole = Retrieval().run(make_context(served=Noisy(source)))
    assert result.metrics["map"].value < whole.metrics["map"].value
    assert "search_recall_at_10" not in whole.metrics


def test_choices_are_seeded_and_lonely_classes_left_out(make_context, source):
    context = make_context(test=source.dataset(80, seed=1))
    small = Retrieval(gallery_images=60, query_images=30)
    first, second = (small.run(context) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert first.cost == {"images": 90}
    train = context.train.subset(np.flatnonzero(np.asarray(context.train.labels) != 3))
    result = Retrieval().run(make_context(train=train))
    assert any("20 test images have a class" in w for w in result.warnings)
    assert result.metrics["map"].n == 60
    bare = Dataset("bare", np.zeros((30, 8, 8, 1), np.uint8))
    assert Retrieval().run(make_context(test=bare)).status == "skipped"


def test_through_the_served_search(repository, tmp_path):
    train = load_dataset("digits").subset(np.arange(300))
    test = load_dataset("digits:test").subset(np.arange(60))
    with (
        running_server(models=repository / "models", data_dir=tmp_path) as address,
        embedkit.connect(address) as client,
    ):
        served = client.model("digits")
        result = Retrieval().run(Context(served, train, test))
        assert client.collections() == []
        exact = Retrieval().run(Context(Embedding(served), train, test))
    assert not any(EXACT in w for w in result.warnings)
    assert result.metrics["search_recall_at_10"].value == 1
    for name, metric in exact.metrics.items():
        assert result.metrics[name].value == pytest.approx(metric.value, abs=1e-3)
    assert result.metrics["map"].value > 0.8


class Embedding:
    """A served model without its collections."""

    def __init__(self, served):
        self.embed, self.digest, self.dim = served.embed, served.digest, served.dim
