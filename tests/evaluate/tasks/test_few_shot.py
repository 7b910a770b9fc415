import numpy as np
import pytest

from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.few_shot import FewShot

OPTIONS = Options(shots=(1, 3), shot_draws=4)


def test_each_draw_has_n_images_of_each_class(make_context, noisy, embedded):
    context = make_context(served=noisy, options=OPTIONS)
    result = FewShot().run(context)
    (train, y), (test, wanted) = embedded(context.train), embedded(context.test)
    for n in (1, 3):
        draws = result.items[f"draws_n{n}"]
        assert draws.shape == (4, 4 * n)
        assert len({row.tobytes() for row in draws}) == 4
        for rows, right in zip(draws, result.items[f"correct_top1_n{n}"], strict=True):
            assert np.bincount(y[rows]).tolist() == [n] * 4
            means = np.stack([train[rows][y[rows] == c].mean(axis=0) for c in range(4)])
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            np.testing.assert_array_equal((test @ means.T).argmax(axis=1) == wanted, right)


def test_mean_spread_and_interval(make_context, noisy):
    result = FewShot().run(make_context(served=noisy, options=OPTIONS))
    shares = result.items["correct_top1_n3"].mean(axis=1)
    metric = result.metrics["top1_n3"]
    assert metric.value == pytest.approx(shares.mean())
    assert result.metrics["top1_n3_sd"].value == pytest.approx(shares.std(ddof=1))
    low, high = metric.ci
    # Wider than either spread alone: t(3) = 3.182 of the draws, 1.96 of 80 images.
    of_draws = 3.182 * shares.std(ddof=1) / 2
    of_images = 1.96 * np.sqrt(metric.value * (1 - metric.value) / 80)
    assert high - low > 2 * max(of_draws, 0.9 * of_images)
    assert high - low < 2.1 * (of_draws + of_images)


def test_a_class_with_too_few_images_rules_an_n_out(make_context, source):
    result = FewShot().run(make_context(train=source.dataset(9), options=OPTIONS))
    assert "no 3 images per class: 'level 1' has 2 training images" in result.warnings
    assert "top1_n1" in result.metrics
    assert "top1_n3" not in result.metrics
    none = FewShot().run(
        make_context(train=source.dataset(9), options=Options(shots=(50,), shot_draws=2))
    )
    assert none.status == "skipped"
