from dataclasses import replace

import numpy as np
import pytest

from embedkit.evaluate.statistics import wilson
from embedkit.evaluate.tasks.risk import Risk


def test_the_parts_add_up_to_the_error(make_context, noisy):
    result = Risk().run(make_context(served=noisy))
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    total = metrics.pop("total")
    assert sum(metrics.values()) == pytest.approx(total)
    assert total == result.items["wrong_test"].mean()
    fitted, held = result.items["wrong_fitted"], result.items["wrong_held_out"]
    assert len(fitted) == 240
    assert len(held) == 48
    assert metrics["probe_generalisation"] == pytest.approx(held.mean() - fitted.mean())


def test_images_with_two_classes_are_beyond_any_function(make_context, source):
    data = source.dataset(200)
    images, labels = data.images.copy(), data.labels.copy()
    images[100:106] = images[0]
    labels[[0, *range(100, 106)]] = [0, 0, 0, 0, 1, 1, 2]
    train = replace(data, images=images, labels=labels, digest="")
    result = Risk().run(make_context(train=train))
    # Seven equal images, four of class 0: three are wrong whatever is said of them.
    assert result.metrics["approximation"].value == pytest.approx(3 / 200)


def test_an_encoder_that_knows_its_training_images_by_heart(make_context, source):
    """All of the error is in the encoder if test images look like nothing it knows."""
    context = make_context(test=replace(source.dataset(80, seed=1), labels=np.arange(80) % 3))
    metrics = Risk().run(context).metrics
    assert metrics["usability"].value == metrics["probe_generalisation"].value == 0
    assert metrics["encoder_generalisation"].value > 0.5


def test_no_interval_holds_what_cannot_be(make_context, source):
    context = make_context(
        train=source.dataset(24, name="train"), test=source.dataset(4, seed=1, name="test")
    )
    metrics = Risk().run(context).metrics
    for name, metric in metrics.items():
        least = 0 if name in ("approximation", "total") else -1
        assert least <= metric.ci[0] <= metric.value <= metric.ci[1] <= 1, name
    assert metrics["total"].value == 0
    assert metrics["total"].ci == wilson(0, 4)
