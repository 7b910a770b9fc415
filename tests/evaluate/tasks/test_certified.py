import numpy as np
import pytest
from scipy.stats import beta, norm

from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.changed.certificates import certified_accuracy
from embedkit.evaluate.tasks.certified import Certified
from embedkit.serve.server import running_server
from embedkit.testing import SyntheticImages

OPTIONS = Options(
    certified_images=12, certified_select=30, certified_estimate=60, certified_radii_255=(8.0,)
)


def test_radius_of_an_encoder_that_reads_the_brightness(make_context):
    context = make_context(options=OPTIONS)
    result = Certified().run(context)
    # The mean over 64 pixels hardly moves: all samples agree, so p = alpha^(1/n).
    expected = 32 * norm.ppf(beta.ppf(0.001, 60, 1))
    np.testing.assert_allclose(result.items["knn.32.radius_255"], expected)
    labels = np.asarray(context.test.labels)[result.items["index"]]
    np.testing.assert_array_equal(result.items["knn.32.predicted"], labels)
    assert result.metrics["linear.32.mean_radius_255"].value == pytest.approx(expected)
    assert result.cost == {"images": 12, "queries": 12 * 90}


@pytest.mark.parametrize(("kind", "share"), [("perfect", 1.0), ("constant", 0.25)])
def test_an_encoder_that_knows_all_and_one_that_knows_none(make_context, request, kind, share):
    embedder = request.getfixturevalue(kind)
    options = Options(**{**OPTIONS.__dict__, "certified_images": 80})
    result = Certified().run(make_context(served=embedder, options=options))
    for head in ("knn", "linear"):
        assert result.metrics[f"{head}.32.8.certified_accuracy"].value == share


def test_certificates_do_not_depend_on_which_other_images_are_certified(make_context):
    few = Certified().run(make_context(options=OPTIONS))
    more = Options(**{**OPTIONS.__dict__, "certified_images": 20})
    many = Certified().run(make_context(options=more))
    rows = np.searchsorted(many.items["index"], few.items["index"])
    for name in ("raw_pixels.knn.32.radius_255", "raw_pixels.centre.32.bounds"):
        np.testing.assert_array_equal(many.items[name][rows], few.items[name])


def test_without_labels_embeddings_alone_are_certified(make_context):
    bare = SyntheticImages().novel(20, name="bare")
    result = Certified().run(make_context(test=bare, options=OPTIONS))
    assert set(result.metrics) == {"centre.32.abstained", "centre.32.8.output_shift"}
    assert any("label" in warning for warning in result.warnings)


def test_bound_on_the_embedding_is_at_most_two(make_context):
    # 60 samples cannot bound anything: the bound is that of any two unit vectors.
    result = Certified().run(make_context(options=OPTIONS))
    assert result.metrics["centre.32.8.output_shift"].value == 2
    options = Options(certified_images=3, certified_radii_255=(8.0,))
    result = Certified().run(make_context(options=options))
    assert result.metrics["centre.32.8.output_shift"].value == 0


def test_interval_is_that_of_the_images_less_what_may_be_wrong():
    metric = certified_accuracy(np.array([True] * 9 + [False]), 0.01)
    low, high = beta.ppf(0.025, 9, 2), beta.ppf(0.975, 10, 1)
    assert metric.ci == pytest.approx((low - 0.01, high))


def test_through_the_wire(make_context, bundle, tmp_path):
    import embedkit

    with (
        running_server(models=bundle.path.parent.parent, data_dir=tmp_path) as address,
        embedkit.connect(address) as client,
    ):
        result = Certified().run(make_context(served=client.model("toy"), options=OPTIONS))
    assert result.status == "ok"
    assert np.isfinite(result.metrics["knn.32.mean_radius_255"].value)
