from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from embedkit.evaluate.context import Options
from embedkit.evaluate.corruption import corrupt
from embedkit.evaluate.measurement.changed.mce import relative_errors
from embedkit.evaluate.statistics import wilson
from embedkit.evaluate.tasks.corruption import CorruptionRobustness

OPTIONS = Options(
    corruptions=("gaussian_noise", "frost"), corruption_images=50, severities=(1, 5)
)


def test_errors_drift_and_overlap_follow_their_definitions(make_context, noisy, embedded):
    context = make_context(served=noisy, options=OPTIONS)
    result = CorruptionRobustness().run(context)
    rows = result.items["ids"].astype(int)
    assert len(rows) == 50
    images, ids = context.test.images[rows], tuple(map(str, rows))
    spoilt = corrupt(images, "gaussian_noise", 5, ids=ids, seed=0)
    (train, y), z = embedded(context.train), noisy.embed(spoilt).astype(float)
    clean = noisy.embed(images).astype(float)
    peer = KNeighborsClassifier(
        20, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
    ).fit(train, y)
    wrong = peer.predict(z) != context.test.labels[rows]
    np.testing.assert_array_equal(result.items["gaussian_noise.5.wrong"], wrong)
    assert result.metrics["gaussian_noise.5.error"].value == wrong.mean()
    drift = 1 - (z * clean).sum(axis=1)
    np.testing.assert_allclose(result.items["gaussian_noise.5.drift"], drift, atol=1e-6)
    near = [np.argsort(-(v @ train.T), axis=1, kind="stable")[:, :10] for v in (clean, z)]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]
    assert result.metrics["gaussian_noise.5.overlap"].value == pytest.approx(
        np.mean(shared), abs=0.01
    )


def test_mce_is_the_mean_ratio_to_the_reference(make_context, noisy):
    result = CorruptionRobustness().run(make_context(served=noisy, options=OPTIONS))
    found = {name: metric.value for name, metric in result.metrics.items()}
    reference = {name: result.items[f"reference_{name}"].mean() for name in OPTIONS.corruptions}
    ratios = [found[f"{name}.error"] / reference[name] for name in reference if reference[name]]
    assert found["mce"] == pytest.approx(np.mean(ratios))
    # Raw pixels, of unit length, know nothing of brightness and are not worse on noise.
    assert "no relative_mce: the reference has no further errors" in result.warnings
    pair = [found[f"{name}.error"] for name in OPTIONS.corruptions]
    assert found["error"] == pytest.approx(np.mean(pair))


def errors_of(n, seed=0, **shares):
    """Errors of n images, each a mean over five severities, by corruption."""
    rng = np.random.default_rng(seed)
    return {name: rng.binomial(5, share, n) / 5 for name, share in shares.items()}


def test_relative_mce_counts_the_rise_alone():
    own, reference = errors_of(9, fog=0.4, snow=0.2), errors_of(9, 1, fog=0.9, snow=0.8)
    clean, base = np.eye(9)[0], np.eye(9)[:3].sum(axis=0)
    found = relative_errors(own, clean, (reference, base), np.arange(9))
    means = {name: (own[name].mean(), reference[name].mean()) for name in own}
    ratios = [a / b for a, b in means.values()]
    assert found["mce"].value == pytest.approx(np.mean(ratios))
    rises = [(a - 1 / 9) / (b - 3 / 9) for a, b in means.values()]
    assert found["relative_mce"].value == pytest.approx(np.mean(rises))
    assert found["mce"].ci is None


def test_the_intervals_of_mce_hold_the_ratio_of_the_populations():
    held = {"mce": 0, "relative_mce": 0}
    for sample in range(200):
        own = errors_of(150, 2 * sample, fog=0.4, snow=0.2)
        reference = errors_of(150, 2 * sample + 1, fog=0.8, snow=0.5)
        rng = np.random.default_rng([3, sample])
        clean, base = (rng.random(150) < share for share in (0.1, 0.3))
        groups = rng.permutation(150) % 20
        against = (reference, base.astype(float))
        found = relative_errors(own, clean.astype(float), against, groups)
        truth = {
            "mce": (0.4 / 0.8 + 0.2 / 0.5) / 2,
            "relative_mce": (0.3 / 0.5 + 0.1 / 0.2) / 2,
        }
        for name, value in truth.items():
            low, high = found[name].ci
            held[name] += low <= value <= high
    # Of 200 at a nominal 95 %; a ratio whose denominator varies is not quite normal.
    assert all(176 <= count <= 200 for count in held.values()), held


def test_without_labels_drift_is_measured(make_context, source):
    result = CorruptionRobustness().run(make_context(test=source.novel(20), options=OPTIONS))
    assert result.warnings[0].startswith("no errors: expected labels")
    assert "gaussian_noise.5.drift" in result.metrics
    assert not any(name.endswith("error") for name in result.metrics)


def test_the_set_of_mnist_c_runs_alone(make_context):
    options = replace(OPTIONS, corruptions=("mnist_c",), corruption_images=8)
    metrics = CorruptionRobustness().run(make_context(options=options)).metrics
    assert "shot_noise.5.error" in metrics
    assert "canny_edges.1.error" in metrics


def test_pictures_and_curves(make_context):
    figures = CorruptionRobustness().run(make_context(options=OPTIONS)).figures
    assert set(figures) == {"noise", "weather", "examples"}
    assert figures["noise"]["x"] == [1, 5]
    assert [len(row["images"]) for row in figures["examples"]["rows"]] == [8, 8]


def test_no_interval_holds_what_cannot_be(make_context, noisy):
    few = replace(OPTIONS, corruption_images=6)
    metrics = CorruptionRobustness().run(make_context(served=noisy, options=few)).metrics
    for name, metric in metrics.items():
        if metric.ci is None:
            continue
        most = {"error": 1, "overlap": 1, "drift": 2}[name.split(".")[-1].split("_")[-1]]
        assert 0 <= metric.ci[0] <= metric.ci[1] <= most, name


def test_mce_can_be_computed_again_from_the_report(make_context, noisy):
    result = CorruptionRobustness().run(make_context(served=noisy, options=OPTIONS))
    own, raw = result.metrics, result.baselines["raw_pixels"]
    assert set(raw) <= set(own)
    pairs = [(own[f"{c}.error"].value, raw[f"{c}.error"].value) for c in OPTIONS.corruptions]
    assert own["mce"].value == pytest.approx(np.mean([a / b for a, b in pairs if b]))
    assert raw["clean_error"].value == result.items["reference_clean_wrong"].mean()


def test_no_error_at_all_is_not_certain(make_context):
    # The perfect model reads the brightness, and noise leaves that about as it was.
    options = replace(OPTIONS, corruptions=("gaussian_noise",), severities=(1, 2))
    metrics = CorruptionRobustness().run(make_context(options=options)).metrics
    for name in ("error", "gaussian_noise.error"):
        assert metrics[name].value == 0
        assert metrics[name].ci == wilson(0, 50)
