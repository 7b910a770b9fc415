import base64
import io

import numpy as np
from PIL import Image

from embedkit.evaluate.measurement.gallery import novelty_gallery


def level(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).mean()


def test_the_extremes_are_shown_in_their_order(make_context, rng):
    context = make_context()
    scores = {"known": rng.random(80), "halves": rng.random(60)}
    figure = novelty_gallery(context, scores, "known", "knn")
    rows = {row["label"]: row["images"] for row in figure["rows"]}
    assert list(rows) == [
        "most novel of the test images",
        "most familiar of halves",
        "most novel of halves",
    ]
    first = context.test.images[scores["known"].argmax()].mean()
    assert level(rows["most novel of the test images"][0]) == first
    least = context.ood["halves"].images[scores["halves"].argmin()].mean()
    assert level(rows["most familiar of halves"][0]) == least
    assert {len(images) for images in rows.values()} == {10}
