"""The robustness task: on models that know nothing, everything, and on a small real one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits

from embedkit.bundle import Manifest, write_bundle
from embedkit.data.dataset import Dataset
from embedkit.encoders.encoder import build_encoder
from embedkit.errors import InvalidInput, ModelChanged
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.gate import parse_gate
from embedkit.evaluate.measurement.trial.prepare import prepare_trial
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.surrogate import TorchEmbedder, twin
from embedkit.evaluate.tasks.robustness import Robustness
from embedkit.preprocess import InputSpec
from embedkit.testing import ConstantEmbedder, PerfectEmbedder, SyntheticImages

SPEC = InputSpec(8, 8, 1)
OPTIONS = Options(
    attack_images=40, pgd_steps=20, square_queries=40, radii_255=(8.0, 32.0), grid_rows=3
)


def digits():
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    labels, names = data.target.astype(np.int64), tuple("0123456789")
    return (
        Dataset("digits", images[:600], labels[:600], names),
        Dataset("digits", images[600:800], labels[600:800], names),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.set_num_threads(1)
    config = {"name": "resnet", "input": SPEC.to_dict(), "width": 8, "blocks": [1, 1]}
    encoder = build_encoder(config, seed=3)
    manifest = Manifest("toy", 1, SPEC, encoder.feature_dim, {}, encoder=encoder.config)
    files = {"model.onnx": b"not read here", "encoder.safetensors": save(encoder.state_dict())}
    return write_bundle(tmp_path_factory.mktemp("models"), manifest, files)


@pytest.fixture(scope="module")
def context(bundle):
    train, test = digits()
    return Context(twin(bundle), train, test, bundle=bundle, options=OPTIONS)


@pytest.fixture(scope="module")
def result(context):
    return Robustness().run(context)


def synthetic(served, source):
    options = replace(OPTIONS, attack_images=60, radii_255=(8.0,))
    return Context(served, source.dataset(80), source.dataset(60, seed=1), options=options)


def test_a_constant_model_scores_chance():
    source = SyntheticImages()
    result = Robustness().run(synthetic(ConstantEmbedder(), source))
    assert result.status == "ok"
    # It calls everything class 0, whatever is done to the image: 15 of 60 test images.
    for name in ("accuracy", "square.8.accuracy"):
        assert result.metrics[name].value == pytest.approx(0.25)
    assert result.metrics["square.8.cosine_shift"].value == pytest.approx(0, abs=1e-6)
    assert result.metrics["square.8.median_queries"].value == 40


def test_a_perfect_model_scores_one():
    source = SyntheticImages()
    result = Robustness().run(synthetic(PerfectEmbedder(source), source))
    assert result.metrics["accuracy"].value == 1
    assert result.metrics["square.8.accuracy"].value == 1
    assert result.baselines["random_noise"]["square.8.accuracy"].value == 1


def test_every_metric_is_there_with_interval_and_n(result, context):
    expected = {"accuracy", "checks_failed"}
    for radius in ("8", "32"):
        kinds = ("accuracy", "png_accuracy", "jpeg_accuracy", "cosine_shift")
        expected |= {
            f"{attack}.{radius}.{kind}" for attack in ("pgd", "square") for kind in kinds
        }
        expected |= {
            f"worst.{radius}.accuracy",
            f"pgd.{radius}.twin_accuracy",
            f"pgd.{radius}.twin_uint8_accuracy",
            f"square.{radius}.median_queries",
        }
    assert set(result.metrics) == expected
    assert set(result.metrics) == set(Robustness().metric_names(context))
    assert result.status == "ok"
    for name, metric in result.metrics.items():
        if name == "checks_failed":
            continue
        low, high = metric.ci
        assert low <= metric.value <= high
        assert 0 < metric.n <= 40


def test_accuracies_are_shares_of_the_images_examined(result):
    handled = result.items["handled"]
    assert len(handled) == 40
    attacked = handled.sum()
    assert 0 < attacked < 40
    assert result.metrics["accuracy"].value == pytest.approx(attacked / 40)
    success = result.items["square.32.success"]
    standing = result.metrics["square.32.accuracy"]
    assert standing.n == 40
    assert standing.value == pytest.approx((attacked - success.sum()) / 40)


def test_how_many_images_are_examined_does_not_depend_on_how_many_are_handled(context):
    options = replace(context.options, attack_images=10)
    small = replace(context, options=options, bundle=None)
    order = np.random.default_rng(small.seed).permutation(len(small.test))
    for name in ("served", "raw_pixels"):
        assert np.array_equal(prepare_trial(small, name).positions, order[:10])


def test_attacks_are_stronger_than_noise_and_grow_with_the_radius(result):
    value = {name: metric.value for name, metric in result.metrics.items()}
    noise = result.baselines["random_noise"]
    for attack in ("pgd", "square"):
        assert value[f"{attack}.32.accuracy"] < value[f"{attack}.8.accuracy"]
        assert value[f"{attack}.32.accuracy"] < noise[f"{attack}.32.accuracy"].value - 0.1
    assert value["pgd.32.cosine_shift"] > value["pgd.8.cosine_shift"] > 0
    # The twin is the served model here, so that only rounding lies between the two.
    assert abs(value["pgd.32.accuracy"] - value["pgd.32.twin_accuracy"]) < 0.05


def test_the_items_are_the_served_models_own_answers(result, context):
    labels = context.test.labels[result.items["index"]]
    assert np.array_equal(labels[result.items["handled"]], result.items["labels"])
    queries = result.items["square.8.queries"]
    success = result.items["square.8.success"]
    assert (queries[~success] == 40).all()
    assert result.cost["queries"] == queries.sum() + result.items["square.32.queries"].sum()


def test_baselines_are_attacked_in_the_same_way(result):
    assert set(result.baselines) == {"random_noise", "raw_pixels", "random_encoder"}
    assert "square.32.median_queries" in result.baselines["raw_pixels"]
    assert "pgd.32.accuracy" in result.baselines["random_encoder"]
    for metrics in result.baselines.values():
        assert set(metrics) <= set(result.metrics)


def test_figures_hold_what_the_page_draws(result):
    accuracy = result.figures["accuracy"]
    assert accuracy["x"] == [0.0, 8.0, 32.0]
    assert len(accuracy["series"]) == 3
    assert set(result.figures["queries"]["series"]) == {
        "square, radius 8",
        "square, radius 32",
    }
    rows = result.figures["attacked"]["rows"]
    assert len(rows) == 3
    assert all(len(row["images"]) == 3 for row in rows)
    assert "read as" in rows[0]["label"]


def test_a_second_run_is_identical(result, context):
    again = Robustness().run(context)
    assert again.to_dict() == result.to_dict()


def test_without_a_bundle_the_white_box_part_is_left_out(context):
    blind = replace(context, bundle=None, without_bundle="--bundle was not given")
    result = Robustness().run(blind)
    assert result.status == "ok"
    assert not any(name.startswith("pgd") for name in result.metrics)
    assert "square.8.accuracy" in result.metrics
    assert any("no white-box attack" in w and "--bundle" in w for w in result.warnings)


def test_a_bundle_of_another_model_is_not_used(context):
    other = TorchEmbedder(context.served.encoder, "sha256:another")
    result = Robustness().run(replace(context, served=other))
    assert not any(name.startswith("pgd") for name in result.metrics)
    assert any("expected the bundle of the served model" in w for w in result.warnings)


def test_labels_are_needed(context):
    unlabelled = replace(context.test, labels=None, class_names=())
    result = Robustness().run(replace(context, test=unlabelled))
    assert result.status == "skipped"
    assert "expected labels for the test images" in result.warnings[0]


def test_a_model_that_gets_nothing_right_cannot_be_attacked(context):
    wrong = replace(context.test, labels=(context.test.labels + 1) % 10, digest="")

    class Certain(PerfectEmbedder):
        def embed(self, images):
            return np.eye(self.dim, dtype=np.float32)[np.zeros(len(images), int)]

    source = SyntheticImages(classes=10)
    train = replace(context.train, digest="")
    served = Certain(source)
    test = wrong.subset(np.flatnonzero(wrong.labels != train.labels[0])[:20])
    with pytest.raises(
        InvalidInput, match="expected test images that served handles correctly"
    ):
        Robustness().run(Context(served, train, test, options=OPTIONS))


def test_too_few_images_are_said_so(context):
    few = replace(context, test=context.test.subset(range(12)), bundle=None)
    result = Robustness().run(few)
    assert any("12 images are examined, not 40" in w for w in result.warnings)


def test_a_large_bank_of_pixels_is_left_out(context, monkeypatch):
    monkeypatch.setattr("embedkit.evaluate.tasks.robustness.RAW_PIXEL_LIMIT", 100)
    result = Robustness().run(replace(context, bundle=None))
    assert "raw_pixels" not in result.baselines
    assert any("no baseline raw_pixels" in w for w in result.warnings)


def test_a_model_that_changes_ends_the_run(context):
    class Changes(TorchEmbedder):
        calls = 0

        def embed(self, images):
            self.calls += 1
            if self.calls > 5:
                raise ModelChanged("expected the model a, got b")
            return super().embed(images)

    served = Changes(context.served.encoder, "sha256:changes")
    with pytest.raises(ModelChanged):
        Robustness().run(replace(context, served=served, bundle=None))


def test_rgb_files_of_another_size_are_attacked_at_the_models_size(tmp_path):
    import io

    from PIL import Image

    source = SyntheticImages(classes=3, height=16, width=16, channels=3)
    data = source.dataset(40)

    def encode(image):
        buffer = io.BytesIO()
        Image.fromarray(image).resize((40, 40)).save(buffer, "PNG")
        return buffer.getvalue()

    files = Dataset("files", tuple(map(encode, data.images)), data.labels, data.class_names)
    options = replace(OPTIONS, attack_images=6, radii_255=(8.0,))
    result = Robustness().run(Context(PerfectEmbedder(source), files, files, options=options))
    assert result.metrics["square.8.accuracy"].value == 1


def test_several_heads_norms_and_attacks_have_their_own_names(context, bundle):
    options = replace(
        OPTIONS,
        attack_images=12,
        attacks=("fgsm", "patch", "apgd_decision"),
        heads=("knn", "linear", "cosine", "search"),
        norms=("linf", "l2", "patch"),
        pgd_steps=4,
        radii_255=(32.0,),
        l2_radii_255=(150.0,),
        patch_sides_px=(3,),
        attack_checks=False,
    )
    every = replace(context, options=options)
    result = Robustness().run(every)
    assert result.status == "ok"
    names = set(Robustness().metric_names(every))
    assert set(result.metrics) <= names
    for head in ("", "linear.", "cosine.", "search."):
        for attack in ("fgsm.32", "fgsm.l2_150", "patch.patch_3", "apgd_decision.l2_150"):
            assert f"{head}{attack}.twin_accuracy" in result.metrics
        assert f"{head}worst.32.accuracy" in result.metrics
        assert f"{head}checks_failed" in result.metrics
    for kind in ("accuracy", "accuracy_l2", "accuracy_patch", "stages", "checks"):
        assert f"search.{kind}" in result.figures
    assert not any("median_queries" in name for name in result.metrics)


def test_an_attack_is_made_through_the_encoding_that_was_asked_for(context):
    options = replace(OPTIONS, attack_images=12, attacks=("square",), radii_255=(32.0,))

    class Files(TorchEmbedder):
        """Remembers what it was sent."""

        def embed(self, images):
            kinds.add(type(images[0]).__name__)
            return super().embed(images)

    kinds: set[str] = set()
    served = Files(context.served.encoder, context.served.digest)
    sent = replace(
        context,
        served=served,
        bundle=None,
        options=replace(options, encoding="jpeg", attack_checks=False),
    )
    result = Robustness().run(sent)
    assert result.status == "ok"
    assert "bytes" in kinds


def test_unknown_heads_and_attacks_are_named(context):
    for changes, message in (
        ({"heads": ("votes",)}, "expected a head of knn, linear, cosine, search, ood"),
        ({"attacks": ("pgdd",)}, "unknown attack 'pgdd'; did you mean 'pgd'"),
    ):
        wrong = replace(context, options=replace(OPTIONS, **changes))
        with pytest.raises(InvalidInput, match=message):
            Robustness().run(wrong)


def test_a_norm_that_no_attack_knows_is_refused_with_those_that_do(context):
    options = replace(OPTIONS, norms=("patch",))
    wrong = replace(context, options=options)
    message = (
        "expected an attack that knows the norm patch, got pgd, square; attacks that do: patch"
    )
    with pytest.raises(InvalidInput, match=message):
        Robustness().run(wrong)
    for gate in ("robustness.checks_failed<=0", "robustness.accuracy>=0.1"):
        with pytest.raises(InvalidInput, match=message):
            evaluate(wrong, ("robustness",), gates=[parse_gate(gate, ("robustness",))])


def test_a_norm_beside_others_that_no_attack_knows_is_named(context):
    options = replace(
        OPTIONS,
        attack_images=12,
        attacks=("square",),
        radii_255=(8.0,),
        norms=("linf", "patch"),
    )
    beside = replace(context, bundle=None, options=replace(options, baselines=False))
    result = Robustness().run(beside)
    (warning,) = [w for w in result.warnings if w.startswith("no patch")]
    assert warning == ("no patch: none of the attacks square knows it; attacks that do: patch")
    names = Robustness().metric_names(beside)
    assert not any("patch" in name or "worst" in name for name in names)
    gate = parse_gate("robustness.square.patch_8.accuracy>=0", ("robustness",))
    with pytest.raises(InvalidInput, match="unknown metric"):
        evaluate(beside, ("robustness",), gates=[gate])
    # One radius and no gradient: inside the threat, above noise, alike when asked again.
    assert result.metrics["checks_failed"].n == 3


def test_attacks_by_gradient_alone_need_a_bundle(context):
    blind = replace(
        context,
        bundle=None,
        without_bundle="none here",
        options=replace(OPTIONS, attacks=("pgd",)),
    )
    result = Robustness().run(blind)
    assert (result.status, result.metrics) == ("skipped", {})
    assert "no white-box attack: expected the model's bundle" in result.warnings[0]


def test_a_head_that_no_attack_could_be_run_on_is_no_result(context):
    # A cosine has no scores of classes.
    options = replace(OPTIONS, attack_images=6, attacks=("apgd_ce",), heads=("cosine",))
    with pytest.raises(InvalidInput, match="no attack on cosine: no apgd_ce: expected"):
        Robustness().run(replace(context, options=options))


def test_the_ood_head_needs_a_detector(context):
    options = replace(
        OPTIONS, attack_images=6, attacks=("square",), radii_255=(8.0,), attack_checks=False
    )
    alone = replace(context, options=replace(options, heads=("ood",)))
    with pytest.raises(InvalidInput, match="expected a bundle with a detector"):
        Robustness().run(alone)
    beside = replace(context, options=replace(options, heads=("knn", "ood")))
    result = Robustness().run(beside)
    assert result.status == "ok"
    assert any(
        w.startswith("no attack on ood_known: expected a bundle") for w in result.warnings
    )


def test_a_patch_larger_than_the_image_is_refused(context):
    options = replace(OPTIONS, attacks=("patch",), norms=("patch",), patch_sides_px=(4, 9))
    message = "a patch of at most 8 pixels, because the model takes images of 8 x 8, got 9"
    large = replace(context, options=options)
    for ask in (Robustness().run, Robustness().metric_names):
        with pytest.raises(InvalidInput, match=message):
            ask(large)
