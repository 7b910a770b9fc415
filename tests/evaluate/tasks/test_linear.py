from dataclasses import replace

import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.rows import probe_rows
from embedkit.evaluate.tasks.linear import Linear
from embedkit.runtime.probe import fit_probe


def test_the_probe_sees_training_images_alone(make_context):
    context = make_context()
    result = Linear().run(context)
    probe = fit_probe(
        context.embeddings("served", context.train),
        context.train.labels,
        class_names=context.train.class_names,
        seed=0,
    )
    logits = probe.head.logits(context.embeddings("served", context.test))
    np.testing.assert_array_equal(result.items["predictions"], logits.argmax(axis=1))
    assert result.metrics["top1"].value == 1


def test_labels_that_say_nothing_give_chance(make_context, source, rng):
    train = source.dataset(240)
    shuffled = Dataset("noise", train.images, rng.permutation(train.labels), train.class_names)
    test = source.dataset(80, seed=1)
    noisy_test = Dataset("noise", test.images, rng.permutation(test.labels), test.class_names)
    top1 = Linear().run(make_context(train=shuffled, test=noisy_test)).metrics["top1"]
    # four binomial standard errors of 80 images around one in four
    assert top1.value == pytest.approx(0.25, abs=0.2)


def test_both_baselines_with_a_bundle(make_context, bundle):
    result = Linear().run(make_context(bundle=bundle))
    assert set(result.baselines) == {"raw_pixels", "random_encoder"}
    for name, metrics in result.baselines.items():
        right = result.items[f"predictions_{name}"] == result.items["labels"]
        assert metrics["top1"].value == right.mean()
        assert metrics["top1"].n == 80


def test_without_a_bundle_the_random_encoder_is_missing(make_context):
    result = Linear().run(make_context(without_bundle="none here"))
    assert result.status == "ok"
    assert set(result.baselines) == {"raw_pixels"}
    assert result.warnings == (
        "no baseline random_encoder: expected the model's bundle, got none: none here",
    )


def test_one_class_is_skipped(make_context, source):
    one = source.dataset(80).subset(np.arange(0, 80, 4))
    result = Linear().run(make_context(train=one))
    assert result.status == "skipped"
    assert "every prediction is right" in result.warnings[0]


def test_a_limit_takes_every_class_in_proportion(make_context, source):
    train = source.dataset(240).subset(np.arange(0, 240, 4).tolist() + list(range(1, 120, 4)))
    context = make_context(train=train, options=Options(probe_images=30))
    rows = probe_rows(context)
    assert len(rows) == len(set(rows)) == 30
    # 60 images of class 0 and 30 of class 1
    assert np.bincount(train.labels[rows]).tolist() == [20, 10]
    assert "fitted on 30 of 90 training images" in Linear().run(context).warnings
    np.testing.assert_array_equal(probe_rows(context), rows)
    other = probe_rows(replace(context, seed=1))
    assert other.tolist() != rows.tolist()


@pytest.mark.parametrize("limit", [0, 240, 1000])
def test_without_a_limit_all_images_are_fitted_on(make_context, limit):
    context = make_context(options=Options(probe_images=limit))
    np.testing.assert_array_equal(probe_rows(context), np.arange(240))
    assert not any("fitted on" in w for w in Linear().run(context).warnings)
