"""``embedkit eval`` against a real server, on real files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit.bundle import Bundle
from embedkit.cli.eval import command
from embedkit.errors import InvalidInput, ModelMismatch, NotFound, Unavailable
from embedkit.serve.server import running_server
from embedkit.testing import SyntheticImages

pytest.importorskip("embedkit.evaluate.html")

SUITE = "classify,knn,linear,ood,parity"


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    data_dir = tmp_path_factory.mktemp("var")
    with running_server(models=bundle.path.parent.parent, data_dir=data_dir) as address:
        yield address


@pytest.fixture
def data(tmp_path: Path, source: SyntheticImages, files) -> dict[str, str]:
    """A training .npz, test images as a folder of PNG files, and a novel .npz."""
    train, test = source.dataset(240), source.dataset(60, seed=1)
    np.savez(tmp_path / "train.npz", images=train.images, labels=np.asarray(train.labels))
    for i, content in enumerate(files(test.images)):
        label = np.asarray(test.labels)[i]
        folder = tmp_path / "test" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(content)
    np.savez(tmp_path / "two halves.npz", images=source.novel(40).images)
    paths = {"train": "train.npz", "test": "test", "novel": "two halves.npz"}
    return {role: str(tmp_path / name) for role, name in paths.items()}


@pytest.fixture
def run(server: str, data: dict[str, str], tmp_path: Path, bundle: Bundle):
    """Run the command; extra arguments replace or add."""

    def run(*extra: str, suite: str = SUITE, bundle_option: bool = True):
        arguments = ["--server", server, "--model", "toy", "--out", str(tmp_path / "out")]
        arguments += ["--train", data["train"], "--test", data["test"], "--ood", data["novel"]]
        if bundle_option:
            arguments += ["--bundle", str(bundle.path)]
        done = CliRunner().invoke(command, [*arguments, "--suite", suite, *extra])
        path = tmp_path / "out" / "report.json"
        return done, json.loads(path.read_text()) if path.is_file() else {}

    return run


def results(report):
    return {entry["task"]: entry for entry in report["results"]}


def test_everything_through_the_wire(run, server, bundle, tmp_path):
    done, report = run(
        "--gate", "knn.top1>0.3", "--gate", "parity.local_vs_served.knn_flips==0"
    )
    assert done.exit_code == 0, done.output
    assert report["status"] == "valid"
    assert report["model"]["transport"] == "grpc"
    assert report["model"]["address"] == server
    assert report["model"]["provider"] == "CPUExecutionProvider"
    assert (report["model"]["name"], report["model"]["version"]) == ("toy", "1")
    assert report["model"]["digest"] == bundle.model_digest()
    found = results(report)
    assert {task: entry["status"] for task, entry in found.items()} == dict.fromkeys(
        SUITE.split(","), "ok"
    )
    assert all(
        set(found[t]["baselines"]) == {"raw_pixels", "random_encoder"}
        for t in ("knn", "linear", "ood")
    )
    assert "two_halves.served.auroc" in found["ood"]["metrics"]
    assert found["ood"]["metrics"]["served_score.max_abs_error"]["value"] < 1e-5
    parity = found["parity"]["metrics"]
    assert parity["torch_vs_served.max_abs_error"]["value"] < 1e-5
    assert parity["files_vs_pixels.max_abs_error"]["value"] < 1e-6
    for line in ("knn.top1", "parity.torch_vs_served.knn_flips", "gate knn.top1>0.3: passed"):
        assert line in done.output
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_second_run_reads_its_embeddings_from_the_cache(run):
    _, first = run(suite="knn,linear,ood")
    done, second = run(suite="knn,linear,ood")
    assert first["run"]["from_cache"] == []
    assert "served embedding of test" in second["run"]["from_cache"]
    assert "from the cache, not asked again: served embedding of" in done.output
    assert second["results"] == first["results"]
    assert second["figures"] == first["figures"]


def test_a_reader_that_went_away_costs_no_report(server, data, tmp_path):
    end, stdout = os.pipe()
    os.close(end)
    words = ["--server", server, "--model", "toy", "--out", str(tmp_path / "out")]
    words += ["--train", data["train"], "--test", data["test"], "--suite", "classify"]
    command = [sys.executable, "-m", "embedkit", "eval", *words]
    subprocess.run(command, stdout=stdout, stderr=subprocess.DEVNULL, check=False)
    os.close(stdout)
    assert (tmp_path / "out" / "report.json").is_file()
    assert (tmp_path / "out" / "report.html").is_file()


def test_strict_refuses_an_unreadable_file(run, data):
    (Path(data["test"]) / "0" / "cut.png").write_bytes(b"not an image")
    done, report = run("--strict", suite="knn")
    assert isinstance(done.exception, InvalidInput)
    assert "1 that are not" in str(done.exception)
    assert report == {}


def test_a_run_that_measures_nothing_ends_with_1(run, data):
    done, report = run("--test", data["novel"], suite="knn,linear")
    assert done.exit_code == 1
    assert "nothing was measured: every task was skipped" in done.output
    assert {entry["status"] for entry in report["results"]} == {"skipped"}


def test_a_gate_that_does_not_hold_ends_with_1(run):
    done, report = run("--gate", "knn.top1>=1.01", suite="knn")
    assert done.exit_code == 1
    assert report["gates"][0]["passed"] is False
    assert "gate knn.top1>=1.01: failed" in done.output


@pytest.mark.parametrize(
    ("gate", "near"),
    [
        ("knn.topp1>=0.9", "did you mean one of: knn.top1"),
        ("ood.two_halvs.knn.auroc>0.5", "did you mean one of: ood.two_halves.knn.auroc"),
        ("parity.torch_vs_served.knn_flip==0", "parity.torch_vs_served.knn_flips"),
    ],
)
def test_an_unknown_metric_in_a_gate_is_an_error_before_anything_runs(run, gate, near):
    done, report = run("--gate", gate)
    assert isinstance(done.exception, InvalidInput)
    assert near in str(done.exception)
    assert report == {}


@pytest.mark.parametrize("gate", ["knn.top1", "linear.top1>=1"])
def test_a_wrong_gate_is_an_error_before_anything_runs(run, gate):
    done, report = run("--gate", gate, suite="knn")
    assert isinstance(done.exception, InvalidInput)
    assert report == {}


def test_without_a_bundle_the_white_box_parts_are_skipped(run, tmp_path):
    done, report = run(
        "--models", str(tmp_path / "none"), suite="knn,parity", bundle_option=False
    )
    assert done.exit_code == 0, done.output
    found = results(report)
    assert found["parity"]["status"] == "skipped"
    assert "there is no bundle at" in found["parity"]["warnings"][0]
    assert set(found["knn"]["baselines"]) == {"raw_pixels"}


def test_the_default_bundle_is_found_by_name_and_version(run, bundle):
    models = str(bundle.path.parent.parent)
    done, report = run("--models", models, suite="parity", bundle_option=False)
    assert done.exit_code == 0, done.output
    assert results(report)["parity"]["status"] == "ok"


@pytest.fixture
def other_bundle(bundle: Bundle, tmp_path: Path) -> Path:
    """The same name and version with another input block, hence another digest."""
    from dataclasses import replace

    from embedkit.bundle import write_bundle

    spec = replace(bundle.manifest.input, interpolation="nearest")
    kept = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = replace(bundle.manifest, input=spec)
    return write_bundle(tmp_path / "other", manifest, kept).path


def test_a_bundle_that_is_not_served_is_refused(run, other_bundle):
    done, report = run("--bundle", str(other_bundle), suite="knn")
    assert isinstance(done.exception, ModelMismatch)
    assert "give the --bundle that is served" in str(done.exception)
    assert report == {}


def test_a_default_bundle_that_is_not_served_is_left_out(run, other_bundle):
    models = str(other_bundle.parent.parent)
    done, report = run("--models", models, suite="parity", bundle_option=False)
    assert done.exit_code == 1, done.output
    entry = results(report)["parity"]
    assert entry["status"] == "skipped"
    assert "expected the served model sha256:" in entry["warnings"][0]


def test_unlabelled_test_images_leave_what_needs_no_labels(run, data):
    done, report = run("--test", data["novel"], suite="classify,knn,ood,parity")
    assert done.exit_code == 0, done.output
    found = results(report)
    assert {t: found[t]["status"] for t in found} == {
        "classify": "skipped",
        "knn": "skipped",
        "ood": "ok",
        "parity": "ok",
    }
    assert any("are also training or test images" in w for w in found["ood"]["warnings"])


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (("--model", "tOy"), NotFound, "tOy"),
        (("--train", "nowhere"), NotFound, "nowhere"),
        (("--suite", "knnn"), InvalidInput, "did you mean 'knn'"),
        (("--server", "nohost"), InvalidInput, "HOST:PORT"),
        (("--corruption", "fog,frogs"), InvalidInput, "frogs"),
        (
            ("--corruption", "frogs"),
            InvalidInput,
            "sets of them: common, validation, mnist_c, system",
        ),
        (("--detector", "knn, voting"), InvalidInput, "voting"),
    ],
)
def test_wrong_usage(run, extra, error, message):
    done, report = run(*extra)
    assert isinstance(done.exception, error), done.exception
    assert message in str(done.exception)
    assert done.exception.exit_code == 2
    assert report == {}


def test_lists_of_names_take_commas_and_repetition(run):
    few = ("--corruption-images", "4", "--no-baselines")
    names = ("--corruption", "fog,contrast", "--corruption", "jpeg_compression")
    done, report = run(*few, *names, "--detector", "knn,kde", suite="corruption,ood")
    assert done.exit_code == 0, done.output
    options = report["run"]["options"]
    assert options["corruptions"] == ["fog", "contrast", "jpeg_compression"]
    assert options["detectors"] == ["knn", "kde"]


def test_a_run_without_baselines_does_not_miss_them(run):
    suite = "knn,linear,centroid,clustering,ood,retrieval,rmqm,geometry,robustness"
    few = ("--limit-attack", "4", "--radius", "8", "--square-queries", "5", "--pgd-steps", "2")
    done, report = run("--no-baselines", "--no-attack-checks", *few, suite=suite)
    assert done.exit_code == 0, done.output
    for task, entry in results(report).items():
        assert not any("without baselines" in warning for warning in entry["warnings"]), task
        assert not set(entry["baselines"]) & {"raw_pixels", "random_encoder"}


def test_an_attack_that_knows_no_norm_is_wrong_usage(run):
    gates = ("--gate", "robustness.checks_failed<=0", "--gate", "robustness.accuracy>=0")
    done, report = run("--norm", "patch", "--no-baselines", *gates, suite="robustness")
    assert isinstance(done.exception, InvalidInput)
    assert "got pgd, square; attacks that do: patch" in str(done.exception)
    assert report == {}


def test_two_sets_of_one_name_are_refused(run, data, tmp_path, source):
    again = tmp_path / "sub" / "two halves.npz"
    again.parent.mkdir()
    np.savez(again, images=source.novel(10, seed=2).images)
    done, _ = run("--ood", str(again), suite="ood")
    assert isinstance(done.exception, InvalidInput)
    assert "'two_halves' twice" in str(done.exception)


def test_a_server_that_is_not_there(run):
    done, _ = run("--server", "127.0.0.1:1", "--retry-s", "0", suite="knn")
    assert isinstance(done.exception, Unavailable)
