import numpy as np
import pytest

from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.rmqm import ManifoldQuality

OPTIONS = Options(view_images=20)


class Circle:
    """Moves along a circle with the distance from mid grey: steps are known in closed form."""

    dim, digest = 2, "sha256:circle"

    def __init__(self, source):
        self.input = source.spec

    def embed(self, images):
        spread = np.asarray(images).astype(float).std(axis=(1, 2, 3)) / 255
        return np.stack([np.cos(spread), np.sin(spread)], axis=1).astype(np.float32)


def test_steps_are_followed_and_put_together(make_context, source):
    result = ManifoldQuality(steps=4).run(make_context(served=Circle(source), options=OPTIONS))
    steps = result.items["steps"]
    assert steps.shape == (20, 4)
    mean, variation = steps.mean(axis=1), steps.std(axis=1) / steps.mean(axis=1)
    assert result.metrics["rmqm"].value == pytest.approx((mean / (1 + variation)).mean())
    assert result.metrics["total"].value == pytest.approx(steps.sum(axis=1).mean())
    assert result.metrics["variation"].value == pytest.approx(variation.mean())
    # Up to 0.25 of brightness of noise: the whole way is about that long, less what is clipped.
    assert 0.1 < result.metrics["total"].value < 0.3
    assert len(result.figures["steps"]["x"]) == 4


def test_noise_depends_on_the_image_alone(make_context, noisy, source):
    test = source.dataset(30, seed=4)
    context = make_context(served=noisy, test=test, options=Options(view_images=30))
    turned = make_context(
        served=noisy, test=test.subset(np.arange(30)[::-1]), options=Options(view_images=30)
    )
    first, second = (ManifoldQuality().run(c).items["steps"] for c in (context, turned))
    np.testing.assert_allclose(first, second[::-1], atol=1e-6)
