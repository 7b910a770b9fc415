import numpy as np

from embedkit.evaluate.tasks.centroid import Centroid


def test_it_is_the_nearest_mean_direction(make_context, noisy, embedded):
    context = make_context(served=noisy)
    (train, y), (test, wanted) = embedded(context.train), embedded(context.test)
    means = np.stack([train[y == c].mean(axis=0) for c in range(4)])
    angles = np.arccos(test @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T)
    result = Centroid().run(context)
    np.testing.assert_array_equal(result.items["predictions"], angles.argmin(axis=1))
    assert result.metrics["top1"].value == np.mean(angles.argmin(axis=1) == wanted)
    assert 0.3 < result.metrics["top1"].value < 1


def test_baselines_use_the_same_protocol(make_context, bundle):
    result = Centroid().run(make_context(bundle=bundle))
    assert set(result.baselines) == {"raw_pixels", "random_encoder"}
    for name, metrics in result.baselines.items():
        right = result.items[f"predictions_{name}"] == result.items["labels"]
        assert metrics["top1"].value == right.mean()


def test_leakage_is_said(make_context, source):
    both = source.dataset(30)
    assert (
        "30 of 30 test images"
        in Centroid().run(make_context(train=both, test=both)).warnings[0]
    )
