"""Data and servers that are not as they should be: a reason, and what can be kept is kept."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import embedkit
from embedkit.bundle import write_bundle
from embedkit.cli.eval import command
from embedkit.evaluate.report import Subject, write_report
from embedkit.evaluate.run import evaluate
from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server, running_server


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("var")
    with running_server(models=bundle.path.parent.parent, data_dir=data_dir) as address:
        yield address


@pytest.fixture
def run(server, source, tmp_path):
    """Run the command on arrays of images and labels."""

    def run(suite, train, test, novel):
        arguments = ["--server", server, "--out", str(tmp_path / "out"), "--suite", suite]
        arguments += ["--models", str(tmp_path / "none")]
        for role, dataset in (("train", train), ("test", test), ("ood", novel)):
            arrays = {"images": dataset.images}
            if role != "ood":
                arrays |= {"labels": dataset.labels, "classes": np.array(dataset.class_names)}
            np.savez(tmp_path / f"{role}_set.npz", **arrays)
            arguments += [f"--{role}", str(tmp_path / f"{role}_set.npz")]
        done = CliRunner().invoke(command, arguments)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        return done, {entry["task"]: entry for entry in report["results"]}

    return run


def test_one_class_leaves_what_needs_no_classes(run, source):
    test = source.dataset(60, seed=1)
    alone = test.subset(np.flatnonzero(np.asarray(test.labels) == 0))
    done, found = run("knn,linear,ood", source.dataset(120), alone, source.novel(30))
    assert done.exit_code == 0, done.output
    status = {task: entry["status"] for task, entry in found.items()}
    assert status == {"knn": "skipped", "linear": "skipped", "ood": "ok"}
    assert "at least two classes among the test images" in found["knn"]["warnings"][0]
    assert found["ood"]["metrics"]["ood_set.knn.auroc"]["value"] is not None


def test_fewer_training_images_than_neighbours(run, source):
    train = source.dataset(16)
    done, found = run("knn,ood", train, source.dataset(40, seed=1), source.novel(30))
    assert done.exit_code == 0, done.output
    assert "k = 20 was lowered to 16, the number of training images" in found["knn"]["warnings"]
    # The detector's score is a distance to the 50th neighbour: another k is another score.
    expected = "no knn scores of served: expected at least k=50 known images, got 16"
    assert any(w.startswith(expected) for w in found["ood"]["warnings"])
    assert "ood_set.mahalanobis.auroc" in found["ood"]["metrics"]


def test_novel_images_that_are_the_test_images(run, source):
    test = source.dataset(50, seed=1)
    done, found = run("ood", source.dataset(120), test, test)
    assert done.exit_code == 0, done.output
    assert any(
        w.startswith(
            "50 of 50 images of the OOD set 'ood_set' are also training or test images"
        )
        for w in found["ood"]["warnings"]
    )
    assert found["ood"]["metrics"]["ood_set.knn.auroc"]["value"] == pytest.approx(0.5)


def test_a_server_that_restarts_with_another_model(make_context, bundle, tmp_path):
    """The port and the name stay, the model does not: the run ends there, and says so."""
    other = replace(
        bundle.manifest, input=replace(bundle.manifest.input, interpolation="nearest")
    )
    kept = {name: bundle.read(name) for name in bundle.manifest.files}
    changed = write_bundle(tmp_path / "other", other, kept)
    assert changed.model_digest() != bundle.model_digest()

    def serve(models: Path, bind: str) -> tuple[Server, int]:
        config = ServerConfig(models=models, data_dir=tmp_path / "var", bind=bind)
        running = Server(config)
        return running, running.start()

    with ExitStack() as stack:
        first, port = serve(bundle.path.parent.parent, "127.0.0.1:0")
        stack.callback(first.stop, 5.0)
        restarted = []

        def restart_after_knn(message: str, done: float) -> None:
            if message == "knn" and done == 1 and not restarted:
                first.stop(5.0)
                second, _ = serve(changed.path.parent.parent, f"127.0.0.1:{port}")
                stack.callback(second.stop, 5.0)
                restarted.append(second)

        client = stack.enter_context(embedkit.connect(f"127.0.0.1:{port}"))
        context = make_context(served=client.model("toy"), progress=restart_after_knn)
        report = evaluate(context, ("knn", "ood", "classify"), subject=Subject("toy", "1"))
    assert restarted
    assert [result.status for result in report.results] == ["ok", "failed", "failed"]
    assert not report.is_valid
    assert report.exit_code == 1
    assert report.problems[0].startswith("the served model changed during 'ood'")
    assert changed.model_digest() in report.problems[0]
    write_report(report, tmp_path / "report")
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["status"] == "invalid"
    assert written["results"][0]["metrics"]["top1"]["n"] == 80
    assert "This run is not valid" in (tmp_path / "report" / "report.html").read_text()
