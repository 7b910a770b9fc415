import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from embedkit.evaluate.measurement.figures import embedding_map, histogram, image_grid, png


def as_json(figure: dict[str, object]) -> Any:
    """As a reader of report.json finds it."""
    return json.loads(json.dumps(figure, allow_nan=False))


def test_the_map_is_the_principal_plane(rng):
    points = rng.normal(size=(50, 6)) * np.array([5, 3, 1, 0.5, 0.2, 0.1])
    figure = as_json(embedding_map(points.astype(np.float32), ["a"] * 50, "map"))
    expected = PCA(2, svd_solver="full").fit_transform(points)
    for axis, name in enumerate("xy"):
        found = np.array(figure[name])
        sign = np.sign(np.dot(found, expected[:, axis]))
        np.testing.assert_allclose(sign * found, expected[:, axis], atol=2e-4)
    assert figure["labels"] == ["a"] * 50


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (3, 4)])
def test_a_map_of_little(shape):
    figure = as_json(embedding_map(np.ones(shape, np.float32), ["x"] * shape[0], "map"))
    assert figure["x"] == figure["y"] == [0.0] * shape[0]


def test_a_histogram_is_thinned_at_even_quantiles(rng):
    scores = rng.normal(size=5000)
    figure = as_json(histogram({"known": scores, "few": np.arange(3.0)}, "scores"))
    thinned = np.array(figure["series"]["known"])
    assert len(thinned) == 400
    assert thinned[0] == pytest.approx(scores.min(), rel=1e-5)
    assert thinned[-1] == pytest.approx(scores.max(), rel=1e-5)
    assert np.median(thinned) == pytest.approx(np.median(scores), abs=0.01)
    assert figure["series"]["few"] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(rng, channels):
    image = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    back = Image.open(io.BytesIO(base64.b64decode(png(image))))
    assert back.format == "PNG"
    np.testing.assert_array_equal(np.asarray(back).reshape(image.shape), image)


def test_a_grid_has_labelled_rows(rng):
    images = rng.integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    grid = as_json(image_grid([("cat: cat", images), ("dog: cat", images[:1])], "neighbours"))
    assert [row["label"] for row in grid["rows"]] == ["cat: cat", "dog: cat"]
    assert [len(row["images"]) for row in grid["rows"]] == [2, 1]
    assert grid["kind"] == "image_grid"
