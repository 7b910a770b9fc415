import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from embedkit.bundle import Bundle, derive_bundle, pack_arrays
from embedkit.data.dataset import Dataset
from embedkit.detect.detector import Observation, detectors
from embedkit.detect.threshold import Threshold, quantile_threshold
from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.novelty.protocols import broken_promise, group_means
from embedkit.evaluate.tasks.ood import OutOfDistribution
from embedkit.runtime.local import load
from embedkit.testing import ConstantEmbedder, PerfectEmbedder
from embedkit.types import ImageScores

QUICK = OutOfDistribution(resamples=50)


class OwnScore(PerfectEmbedder):
    """Gives a novelty of its own, or none."""

    novelty: Callable[[np.ndarray], np.ndarray] | None = None

    def score(self, images):
        found = super().score(images)
        return replace(found, novelty=None if self.novelty is None else self.novelty(images))


def test_scores_are_the_detectors_on_the_training_embeddings(make_context):
    context = make_context()
    result = QUICK.run(context)
    for name in ("knn", "mahalanobis"):
        fitted = detectors.get(name)().fit(
            Observation(
                context.embeddings("served", context.train), labels=context.train.labels
            )
        )
        for key, dataset in (("known", context.test), ("halves", context.ood["halves"])):
            expected = fitted.score(Observation(context.embeddings("served", dataset)))
            np.testing.assert_array_equal(result.items[f"{name}.{key}"], expected)
    assert result.cost == {"images": 240 + 80 + 60}


def test_every_set_and_detector_has_all_metrics(make_context, source):
    ood = {"halves": source.novel(60), "more": source.novel(30, seed=4)}
    result = QUICK.run(make_context(ood=ood))
    names = (
        "auroc",
        "aupr_id_positive",
        "aupr_ood_positive",
        "fpr95_id_positive",
        "fpr95_ood_positive",
    )
    for key in ("halves", "more"):
        for detector in ("knn", "mahalanobis", "served"):
            assert {f"{key}.{detector}.{n}" for n in names} <= set(result.metrics)
            assert f"{key}.{detector}.roc" in result.figures
            assert f"{key}.{detector}.scores" in result.figures
    assert result.metrics["more.knn.auroc"].n == 110


def test_small_sets_are_noticed_with_their_size(make_context, source):
    ood = {"one": source.novel(1), "few": source.novel(19, seed=4), "most": source.novel(20)}
    result = QUICK.run(make_context(ood=ood))
    small = [text for text in result.warnings if "fewer than 20" in text]
    assert [text.split(",")[0] for text in small] == [
        "the OOD set 'one' has 1 image",
        "the OOD set 'few' has 19 images",
    ]
    assert result.metrics["few.knn.fpr95_id_positive"].ci is None
    assert result.metrics["most.knn.fpr95_id_positive"].ci


def test_baselines(make_context, bundle):
    result = QUICK.run(make_context(bundle=bundle))
    assert set(result.baselines) == {"raw_pixels", "random_encoder"}
    for metrics in result.baselines.values():
        assert set(metrics) <= set(result.metrics)
        assert not any(".served." in name for name in metrics)


def test_known_images_as_ood_set_are_noticed(make_context, source):
    context = make_context(served=OwnScore(source))
    context = replace(context, ood={"same": context.test, "half": _half_known(context)})
    result = QUICK.run(context)
    assert result.warnings[:2] == (
        "80 of 80 images of the OOD set 'same' are also training or test images: "
        "no detector can separate those",
        "10 of 30 images of the OOD set 'half' are also training or test images: "
        "no detector can separate those",
    )
    assert result.metrics["same.knn.auroc"].value == 0.5
    assert result.status == "ok"


def _half_known(context):
    images = np.concatenate([context.ood["halves"].images[:20], context.train.images[:10]])
    return Dataset("half", images)


def test_a_detector_that_cannot_be_fitted_costs_only_itself(make_context, source):
    few = source.dataset(20)  # fewer than the 50 neighbours of knn
    result = QUICK.run(make_context(train=few))
    assert result.status == "ok"
    assert "halves.mahalanobis.auroc" in result.metrics
    assert "halves.knn.auroc" not in result.metrics
    assert any("at least k=50 known images, got 20" in w for w in result.warnings)


def test_nothing_that_can_score_is_a_failure(make_context, source):
    options = Options(detectors=("knn",))
    context = make_context(train=source.dataset(20), served=OwnScore(source), options=options)
    result = QUICK.run(context)
    assert result.status == "failed"
    assert result.metrics == {}
    assert "at least k=50" in result.warnings[0]


def test_without_labels_there_is_one_mean(make_context, source):
    bare = replace(source.dataset(240), labels=None, class_names=(), digest="")
    result = QUICK.run(make_context(train=bare))
    assert result.metrics["halves.knn.auroc"].value == 1


def test_no_ood_set_is_skipped(make_context):
    result = QUICK.run(make_context(ood={}))
    assert result.status == "skipped"
    assert "add --ood" in result.warnings[0]


def test_a_set_called_known_is_refused(make_context, source):
    with pytest.raises(ValueError, match="not called 'known'"):
        QUICK.run(make_context(ood={"known": source.novel(9)}))


def test_a_server_without_a_detector_gives_no_score_of_its_own(make_context, source):
    result = QUICK.run(make_context(served=OwnScore(source)))
    assert not any("served" in name for name in result.metrics)
    assert "served.known" not in result.items


def test_the_servers_own_score_is_measured(make_context, source):
    served = OwnScore(source)
    served.novelty = lambda images: images.reshape(len(images), -1).std(axis=1)
    result = QUICK.run(make_context(served=served))
    assert result.metrics["halves.served.auroc"].value == 1
    np.testing.assert_array_equal(
        result.items["served.halves"], source.novel(60).images.reshape(60, -1).std(axis=1)
    )


def test_the_servers_score_is_compared_with_the_bundles_detector(
    make_context, bundle, tmp_path
):
    """The session stands for the server; its score comes from the bundle's own detector."""
    arrays = bundle.arrays("detectors/knn.npz")
    fitted = detectors.get("knn")().restore(arrays)
    served = load(bundle.path, novelty=lambda z, f, _: fitted.score(Observation(z, f)))
    good = QUICK.run(make_context(served=served, bundle=bundle))
    assert good.metrics["served_score.max_abs_error"].value < 1e-6
    assert good.metrics["served_score.max_abs_error"].n == 140
    own = tmp_path / "toy" / "1"  # a new version must not appear beside the shared one
    shutil.copytree(bundle.path, own)
    other = derive_bundle(
        Bundle(own), {"detectors/knn.npz": pack_arrays({**fitted.state(), "k": np.asarray(1)})}
    )
    bad = QUICK.run(make_context(served=served, bundle=other))
    assert bad.metrics["served_score.max_abs_error"].value > 1e-4


def test_a_constant_score_is_chance(make_context, source):
    result = QUICK.run(make_context(served=ConstantEmbedder(source.spec)))
    assert result.metrics["halves.knn.auroc"].value == 0.5
    assert isinstance(ConstantEmbedder().score(np.zeros((1, 8, 8, 1), np.uint8)), ImageScores)


def test_every_detector_can_be_asked_for(make_context, source):
    """Without a bundle the logits come from a probe on the training images."""
    names = tuple(n for n in detectors.names() if n != "beyond")
    train = source.dataset(120, name="train")
    result = QUICK.run(make_context(train=train, options=Options(detectors=names)))
    missing = [n for n in names if f"halves.{n}.auroc" not in result.metrics]
    assert missing == [], result.warnings
    logit_free = {n for n in names if detectors.get(n)().needs == {"embeddings"}}
    judged = {name.split(".")[1] for name in result.baselines["raw_pixels"]}
    assert judged == logit_free


def test_views_are_made_for_the_detector_that_needs_them(make_context):
    result = QUICK.run(make_context(options=Options(detectors=("beyond",))))
    assert "halves.beyond.auroc" in result.metrics


def test_near_and_far_are_means_over_sets_never_pooled(make_context, source):
    """Two sets of very different size count alike; each area by counting pairs."""
    ood = {
        "halves": source.novel(60),
        "few": source.dataset(20, seed=9),
        "alone": source.novel(25),
    }
    context = make_context(ood=ood, near=("halves", "few"), far=("alone",))
    result = OutOfDistribution(resamples=300).run(context)
    known = result.items["knn.known"]
    areas = []
    for name in ("halves", "few"):
        pairs = result.items[f"knn.{name}"][:, None] - known[None]
        areas.append(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    near = result.metrics["near_mean.knn.auroc"]
    assert near.value == pytest.approx(np.mean(areas), abs=1e-12)
    assert near.ci is None  # all scores of a set are equal, so that no resample differs
    assert result.metrics["far_mean.knn.auroc"].value == result.metrics["alone.knn.auroc"].value


def test_the_mean_over_sets_has_an_interval_of_the_size_of_its_error(make_context):
    """The known images are shared, so the error is that of the mean of dependent areas."""
    rng = np.random.default_rng(0)

    def draw():
        return {
            "known": rng.normal(size=300),
            "a": rng.normal(1, 1, 100),
            "b": rng.normal(2, 1, 200),
        }

    def area(found, name):
        return np.mean(found[name][:, None] > found["known"][None])

    context = make_context(near=("a", "b"))
    metric = group_means(context, "knn", draw(), resamples=1000)["near_mean.knn.auroc"]
    spread = np.std([(area(f, "a") + area(f, "b")) / 2 for f in (draw() for _ in range(300))])
    assert (metric.ci[1] - metric.ci[0]) / 2 / 1.96 == pytest.approx(spread, rel=0.2)


def test_the_full_spectrum_has_shifted_images_on_the_known_side(make_context, source):
    context = make_context(shifted={"later": source.dataset(50, seed=8)})
    result = QUICK.run(context)
    known = np.concatenate([result.items["knn.known"], result.items["knn.later"]])
    pairs = result.items["knn.halves"][:, None] - known[None]
    area = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    found = result.metrics["full_spectrum.halves.knn.auroc"]
    assert found.value == pytest.approx(area, abs=1e-12)
    assert found.n == 60 + 80 + 50
    assert not result.metrics["shifted.later.knn.auroc"].higher_is_better
    assert set(result.metrics) <= set(OutOfDistribution().metric_names(context))


def test_a_set_is_shifted_or_novel(make_context, source):
    with pytest.raises(ValueError, match="either shifted or novel, got both"):
        QUICK.run(make_context(shifted={"halves": source.novel(9)}))


def test_the_bundles_threshold_is_tried_on_the_served_scores(make_context, bundle):
    arrays = bundle.arrays("detectors/knn.npz")
    fitted = detectors.get("knn")().restore(arrays)
    threshold = Threshold.from_arrays(arrays).value
    served = load(bundle.path, novelty=lambda z, f, _: fitted.score(Observation(z, f)))
    result = QUICK.run(make_context(served=served, bundle=bundle))
    shares = {k: np.mean(result.items[f"served.{k}"] <= threshold) for k in ("known", "halves")}
    accepted = result.metrics["served_threshold.known.accepted"]
    assert accepted.value == shares["known"]
    assert accepted.ci_method == "wilson"
    assert result.metrics["served_threshold.halves.rejected"].value == 1 - shares["halves"]


def test_a_threshold_that_breaks_its_promise_is_noticed():
    chosen = quantile_threshold(np.arange(1000.0))
    assert broken_promise(chosen, np.arange(0, 1000, 5.0)) == []
    (warning,) = broken_promise(chosen, np.arange(0, 1000, 5.0) + 100)
    assert "should accept 95%" in warning
    assert "accepts 85.0% of the 200" in warning
