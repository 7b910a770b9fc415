import numpy as np
import pytest

from embedkit.data.dataset import Dataset
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
