"""Further precisions of a bundle: written, compared with torch, or refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embedkit.bundle import Bundle
from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.errors import BundleDamaged, InvalidInput, NotFound, ParityFailed
from embedkit.export.bundling import Additions, Target, bundle_source
from embedkit.export.precisions import Compared, Precisions, _compare_decisions, _warnings
from embedkit.export.reference import TorchReference
from embedkit.export.run import export_run, read_run
from embedkit.export.source import Source
from embedkit.runtime.features import FeatureCache
from embedkit.runtime.local import GOLDEN_LIMITS, load

ALL = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits").subset(range(400))


@pytest.fixture(scope="module")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run behind the bundle of digits that is part of the project."""
    folder = tmp_path_factory.mktemp("run")
    bundle = Bundle(repository / "models" / "digits" / "1")
    for name in ("encoder.safetensors", "recipe.toml"):
        (folder / name).write_bytes(bundle.read(name))
    (folder / "encoder.json").write_text(json.dumps(bundle.manifest.encoder))
    (folder / "run.json").write_text(json.dumps({"objective": bundle.manifest.objective}))
    return folder


@pytest.fixture(scope="module")
def exported(trained, digits, tmp_path_factory) -> Bundle:
    models = tmp_path_factory.mktemp("models")
    return export_run(
        trained, name="digits", models=models, head=digits, precisions=Precisions(ALL)
    )


def test_each_precision_has_a_graph_a_record_and_golden_embeddings(exported: Bundle) -> None:
    assert exported.precisions == ALL
    assert len({exported.model_digest(precision) for precision in ALL}) == 3
    parity = json.loads(exported.read("parity.json"))
    assert (parity["precision"], parity["max_abs_error"] <= 1e-5) == ("fp32", True)
    assert list(parity["precisions"]) == ["fp16", "int8"]
    for precision, limit in (("fp16", 2e-3), ("int8", 5e-2)):
        record = parity["precisions"][precision]
        assert record["precision"] == precision
        assert 1e-5 < record["inputs"]["real"]["max_abs_error"] <= record["limit"] == limit
        decisions = record["decisions"]
        assert decisions["n"] == 256
        assert decisions["neighbour_overlap"] > 0.95
        assert decisions["knn_flips"] + decisions["class_flips"] <= 4
        assert record["warnings"] == []
    assert parity["precisions"]["int8"]["calibration"] == {"data": "digits", "images": 256}
    sizes = {name: record.bytes for name, record in exported.manifest.files.items()}
    assert sizes["model.int8.onnx"] < 0.4 * sizes["model.onnx"]
    assert sizes["model.fp16.onnx"] < 0.6 * sizes["model.onnx"]
    assert "`model.int8.onnx`" in exported.read("CARD.md").decode()


def test_each_precision_loads_and_is_itself(exported: Bundle) -> None:
    images = load_dataset("digits:test").images[:64]
    z = {p: load(exported.path, precision=p, threads=1).embed(images) for p in ALL}
    assert 1e-6 < np.abs(z["fp16"] - z["fp32"]).max() < 2e-3
    assert 2e-3 < np.abs(z["int8"] - z["fp32"]).max() < 5e-2
    golden = {p: exported.golden(p) for p in ALL}
    for precision in ALL:
        model = load(exported.path, precision=precision, threads=1)
        got = model.session.embed(golden[precision].images)
        error = np.abs(got - golden[precision].embeddings).max()
        assert error <= GOLDEN_LIMITS[precision]
    assert np.abs(golden["int8"].embeddings - golden["fp32"].embeddings).max() > 1e-3


def test_the_cache_never_mixes_precisions(exported: Bundle, tmp_path: Path) -> None:
    images = load_dataset("digits:test").images[:16]
    for _ in range(2):  # the second time from the disk
        cache = FeatureCache(tmp_path)
        for precision in ALL:
            model = load(exported.path, precision=precision, threads=1)
            z = cache.get(
                model.digest, "data", "embedding", 16, lambda model=model: model.embed(images)
            )
            assert np.array_equal(z, model.embed(images))
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_a_precision_that_is_not_there_is_an_error_with_those_that_are(
    repository: Path,
) -> None:
    with pytest.raises(NotFound, match=r"of digits:1 in one of \['fp32'\], got 'int8'"):
        load(repository / "models" / "digits" / "1", precision="int8")


def test_a_damaged_graph_is_refused(exported: Bundle) -> None:
    file = exported.path / "model.int8.onnx"
    original = file.read_bytes()
    middle = len(original) // 2
    changed = bytes([original[middle] ^ 64])
    file.write_bytes(original[:middle] + changed + original[middle + 1 :])
    try:
        for verify in (True, False):
            with pytest.raises(BundleDamaged, match=r"model\.int8\.onnx"):
                load(exported.path, precision="int8", verify=verify)
        assert load(exported.path, verify=False).precision == "fp32"
    finally:
        file.write_bytes(original)


def test_int8_that_is_too_far_from_torch_is_refused(kinds, digits, tmp_path: Path) -> None:
    """An untrained class token hardly depends on the image: 8 bits cannot tell it."""
    source = Source(kinds("vit"))
    target = Target(tmp_path, "vit")
    additions = Additions(known=digits)
    with pytest.raises(ParityFailed, match=r"within 0\.05 .* in int8, got 0\.\d+ on real"):
        bundle_source(source, target, additions, Precisions(("int8",)))
    assert not list(tmp_path.rglob("*.onnx"))


def test_without_images_to_calibrate_on_the_way_out_is_named(
    kinds, run_folder: Path, digits, tmp_path: Path
) -> None:
    wanted = Precisions(("int8",))
    target = Target(tmp_path, "m")
    foreign = Source(kinds("resnet"))
    with pytest.raises(
        InvalidInput, match=r"a model trained elsewhere has none.*--calibration"
    ):
        bundle_source(foreign, target, Additions(), wanted)
    moved = run_folder / "recipe.toml"
    moved.write_text('[data]\nsource = "no/such/folder"\n')
    with pytest.raises(InvalidInput, match=r"training images cannot be read: .*--calibration"):
        bundle_source(read_run(run_folder), target, Additions(), wanted)
    none = Precisions(("int8",), digits.subset([]))
    with pytest.raises(InvalidInput, match="none in digits"):
        bundle_source(foreign, target, Additions(), none)
    few = Precisions(("int8",), digits.subset(range(50)))
    bundle = bundle_source(foreign, target, Additions(), few)
    parity = json.loads(bundle.read("parity.json"))
    assert parity["precisions"]["int8"]["calibration"]["images"] == 50
    # What is compared is of the same kind as what it was calibrated on.
    assert (parity["real_images"], parity["inputs"]["real"]["n"]) == ("digits", 50)


def test_poor_calibration_is_measured_on_the_training_images(trained, digits, tmp_path) -> None:
    """And not on the images that the scales fit, which would be called good."""
    black = Dataset("black", np.zeros((40, 8, 8, 1), np.uint8))
    with pytest.raises(
        ParityFailed, match=r"in int8, got 0\.\d+ on real.*other images with --calibration"
    ):
        export_run(
            trained, name="digits", models=tmp_path, precisions=Precisions(("int8",), black)
        )
    few = Precisions(("int8",), digits.subset([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    bundle = bundle_source(read_run(trained), Target(tmp_path, "digits"), Additions(), few)
    record = json.loads(bundle.read("parity.json"))["precisions"]["int8"]
    assert record["inputs"]["real"]["n"] > record["calibration"]["images"] == 11
    assert any("32 different images to calibrate on, got 10" in w for w in record["warnings"])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"fp16, int8, got ''"):
        Precisions(("",))
    with pytest.raises(InvalidInput, match="--calibration with int8 in --precision, got fp16"):
        Precisions(("fp16",), load_dataset("digits"))
    with pytest.raises(InvalidInput, match="as some of fp32, fp16, int8, got fp8"):
        Precisions(("fp32", "fp8"))
    assert Precisions(("int8", "fp32", "fp16", "int8")).smaller == ("fp16", "int8")


def test_decisions_by_brute_force(kinds, digits) -> None:
    """The smaller graph is another network here, so that much changes."""

    class Other(TorchReference):
        pass

    one, other = TorchReference(kinds("resnet")), Other(kinds("resnet", seed=5))
    images, labels = digits.images[:60], digits.labels[:60]
    compared = Compared(one, images, labels, 10)
    got = _compare_decisions(compared, other)  # type: ignore[arg-type]  # both embed
    kept, flips = [], 0
    z = [model.embed(images).astype(np.float64) for model in (one, other)]
    for i in range(60):
        near = []
        for rows in z:
            cosines = rows @ rows[i]
            cosines[i] = -9
            near.append((np.argsort(-cosines)[:20], cosines))
        kept.append(len(set(near[0][0][:10]) & set(near[1][0][:10])) / 10)
        winners = []
        for order, cosines in near:
            votes: Counter[int] = Counter()
            for j in order:
                votes[int(labels[j])] += np.exp(cosines[j] / 0.07)
            winners.append(votes.most_common(1)[0][0])
        flips += winners[0] != winners[1]
    assert got["neighbour_overlap"] == pytest.approx(np.mean(kept), abs=1e-3)
    assert got["knn_flips"] == pytest.approx(flips, abs=1)
    assert (got["n"], flips > 5) == (60, True)


def test_copies_of_an_image_are_neighbours_and_the_image_is_not(kinds, digits) -> None:
    reference = TorchReference(kinds("resnet"))
    images = np.repeat(digits.images[:1], 30, axis=0)
    got = _compare_decisions(Compared(reference, images), reference)  # type: ignore[arg-type]
    assert got == {"n": 30, "neighbour_overlap": 1.0}
    alone = _compare_decisions(Compared(reference, images[:1]), reference)  # type: ignore[arg-type]
    assert alone == {"n": 1}


def test_warnings_name_what_was_expected() -> None:
    fine = {"n": 100, "neighbour_overlap": 0.9, "knn_flips": 2, "class_flips": 0}
    assert _warnings(fine) == []
    bad = _warnings({"n": 100, "neighbour_overlap": 0.89, "knn_flips": 3, "class_flips": 3})
    assert [w.split(", got ")[1] for w in bad] == ["0.890", "0.030", "0.030"]


def test_the_command_writes_and_says_what_changes(run_folder: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from embedkit.cli.export import command

    words = [str(run_folder), "--name", "m", "--models", str(tmp_path)]
    words += ["--precision", "int8, fp16"]
    shown = CliRunner().invoke(command, words, catch_exceptions=False).output
    assert "fp16: " in shown
    assert "(limit 0.05)" in shown
    assert "of the nearest images kept" in shown
    assert Bundle(tmp_path / "m" / "1").precisions == ALL
