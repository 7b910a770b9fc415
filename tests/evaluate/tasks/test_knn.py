import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Options
from embedkit.evaluate.statistics import wilson
from embedkit.evaluate.tasks.knn import NearestNeighbours

OTHERS = ("top1_lightly_k200", "top1_majority_k5", "top1_majority_k20")


def test_predictions_agree_with_sklearn(make_context, noisy):
    context = make_context(served=noisy)
    result = NearestNeighbours().run(context)
    train = context.embeddings("served", context.train)
    test = context.embeddings("served", context.test)
    for k in (1, 5, 20, 200):
        peer = KNeighborsClassifier(
            k, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
        ).fit(train, context.train.labels)
        np.testing.assert_array_equal(result.items[f"predictions_k{k}"], peer.predict(test))
    assert 0.3 < result.metrics["top1"].value < 1


def test_the_other_conventions_agree_with_sklearn(make_context, noisy):
    context = make_context(served=noisy)
    items = NearestNeighbours().run(context).items
    train = context.embeddings("served", context.train)
    test = context.embeddings("served", context.test)
    conventions = {
        "lightly_k200": (200, lambda d: np.exp((1 - d) / 0.1)),
        "majority_k5": (5, "uniform"),
        "majority_k20": (20, "uniform"),
    }
    for name, (k, weights) in conventions.items():
        peer = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
        expected = peer.fit(train, context.train.labels).predict(test)
        np.testing.assert_array_equal(items[f"predictions_{name}"], expected)
    different = {items[f"predictions_{name}"].tobytes() for name in ("k5", *conventions)}
    assert len(different) == 4


def test_the_main_number_is_k_20(make_context, noisy):
    result = NearestNeighbours().run(make_context(served=noisy))
    assert list(result.metrics) == ["top1", "top1_k1", "top1_k5", "top1_k200", *OTHERS]
    right = int((result.items["predictions_k20"] == result.items["labels"]).sum())
    top1 = result.metrics["top1"]
    assert (top1.value, top1.ci, top1.n) == (right / 80, wilson(right, 80), 80)
    assert result.cost == {"images": 320}


def test_baselines_use_the_same_protocol(make_context, bundle):
    result = NearestNeighbours().run(make_context(bundle=bundle))
    assert set(result.baselines) == {"raw_pixels", "random_encoder"}
    for name, metrics in result.baselines.items():
        assert list(metrics) == list(result.metrics)
        right = result.items[f"{name}_predictions_k20"] == result.items["labels"]
        assert metrics["top1"].value == right.mean()
    assert result.warnings == ()


def test_fewer_images_than_k_is_said(make_context, source):
    few = source.dataset(12)
    result = NearestNeighbours().run(make_context(train=few))
    assert "k = 20 was lowered to 12, the number of training images" in result.warnings
    assert "k = 200 was lowered to 12, the number of training images" in result.warnings
    assert set(result.metrics) == {"top1", "top1_k1", "top1_k5", "top1_k200", *OTHERS}
    everything = result.items["predictions_k200"]
    np.testing.assert_array_equal(result.items["predictions_k20"], everything)


@pytest.mark.parametrize("role", ["train", "test"])
def test_unlabelled_data_is_skipped_with_the_way_out(make_context, role):
    bare = Dataset("bare", np.zeros((30, 8, 8, 1), np.uint8))
    result = NearestNeighbours().run(make_context(**{role: bare}))
    assert result.status == "skipped"
    assert "give class sub-folders" in result.warnings[0]


def test_leakage_is_warned_about(make_context, source):
    both = source.dataset(60)
    result = NearestNeighbours().run(make_context(train=both, test=both))
    assert "60 of 60 test images are also training images" in result.warnings[0]


def test_map_and_pictures(make_context, source):
    context = make_context(options=Options(map_points=30, grid_rows=3))
    figures: Any = NearestNeighbours().run(context).figures
    assert len(figures["map"]["x"]) == len(figures["map"]["labels"]) == 30
    rows = figures["neighbours"]["rows"]
    assert [len(row["images"]) for row in rows] == [7, 7, 7]
    for row in rows:
        label, _, near = row["label"].partition(": ")
        assert near.split(", ") == [label] * 6  # a perfect embedder
        query = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["images"][0]))))
        level = source.levels[int(label.split()[1])]
        assert abs(query.mean() - level) < 8


def test_pictures_of_files(make_context, source, files):
    test = source.dataset(20, seed=1)
    encoded = replace(test, images=files(test.images), digest="")
    figures = NearestNeighbours().run(make_context(test=encoded)).figures
    same = NearestNeighbours().run(make_context(test=test)).figures
    assert figures["neighbours"] == same["neighbours"]


def test_the_surest_mistakes_are_wrong_and_in_order(make_context, noisy, embedded):
    context = make_context(served=noisy, options=Options(grid_rows=4))
    result = NearestNeighbours().run(context)
    (train, y), (test, wanted) = embedded(context.train), embedded(context.test)
    cosines = test @ train.T
    other = np.where(y[None] != wanted[:, None], cosines, -2).max(axis=1)
    own = np.where(y[None] == wanted[:, None], cosines, -2).max(axis=1)
    wrong = np.flatnonzero(result.items["predictions_k20"] != wanted)
    expected = wrong[np.argsort(own[wrong] - other[wrong], kind="stable")][:4]
    rows = result.figures["hardest"]["rows"]
    assert [row["label"].split(":")[0] for row in rows] == [
        f"level {wanted[i]}" for i in expected
    ]
