import numpy as np
import pytest
from scipy.spatial.distance import pdist

from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.geometry import Geometry
from embedkit.testing import ConstantEmbedder


def test_measures_follow_their_definitions(make_context, noisy, embedded):
    context = make_context(served=noisy, options=Options(view_images=20))
    metrics = Geometry().run(context).metrics
    z, labels = embedded(context.test)
    expected = np.log(np.mean(np.exp(-2 * pdist(z) ** 2)))
    assert metrics["uniformity"].value == pytest.approx(expected, abs=1e-5)
    values = np.linalg.eigvalsh(np.cov(z, rowvar=False))
    ratio = values.sum() ** 2 / (values**2).sum()
    assert metrics["participation_ratio"].value == pytest.approx(ratio, rel=1e-4)
    cosines = z @ z.T - 9 * np.eye(80)
    nearest = np.argsort(-cosines, axis=1)[:, :10]
    purity = (labels[nearest] == labels[:, None]).mean()
    assert metrics["purity_k10"].value == pytest.approx(purity)
    same = labels[:, None] == labels
    np.fill_diagonal(same, val=False)
    assert metrics["tolerance"].value == pytest.approx((z @ z.T)[same].mean(), abs=1e-5)
    assert 0 < metrics["alignment"].value < 4
    assert 1 <= metrics["lidar"].value <= 6


def test_every_metric_has_an_interval_around_its_value(make_context, noisy):
    metrics = (
        Geometry().run(make_context(served=noisy, options=Options(view_images=20))).metrics
    )
    for name, metric in metrics.items():
        assert metric.ci is not None, name
        assert metric.ci[0] <= metric.value <= metric.ci[1], name
    few = Geometry().run(
        make_context(
            served=noisy,
            test=make_context().test.subset(range(15)),
            options=Options(view_images=10),
        )
    )
    assert few.metrics["rankme"].ci is None
    assert few.metrics["lidar"].ci is None


def test_models_are_compared_on_the_same_images(make_context, bundle):
    result = Geometry().run(make_context(bundle=bundle, options=Options(view_images=10)))
    for name in ("raw_pixels", "random_encoder", "twin"):
        assert 0 <= result.metrics[f"cka.{name}"].value <= 1
    assert set(result.baselines) == {"raw_pixels", "random_encoder"}


def test_without_labels_the_rest_is_measured(make_context, source):
    result = Geometry().run(
        make_context(test=source.novel(40), options=Options(view_images=10))
    )
    assert result.warnings[0].startswith("no tolerance, nc1")
    assert "uniformity" in result.metrics
    assert "nc1" not in result.metrics


def test_a_constant_model_uses_no_direction(make_context, source):
    result = Geometry().run(
        make_context(served=ConstantEmbedder(source.spec), options=Options(view_images=10))
    )
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert (found["participation_ratio"], found["lidar"], found["alignment"]) == (0, 0, 0)
    assert "nc1" not in found
    assert not result.figures
