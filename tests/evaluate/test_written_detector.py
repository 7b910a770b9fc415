"""A detector that is fitted for a bundle is verified through the server's own OOD score."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from embedkit import connect
from embedkit.bundle import Bundle
from embedkit.cli.bundle import command
from embedkit.detect.threshold import Threshold
from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.ood import OutOfDistribution
from embedkit.serve.server import running_server


@pytest.fixture
def fit(bundle, source, tmp_path):
    """Fit detectors one after the other, each in a version of its own."""
    train = source.dataset(240, seed=5)
    np.savez(tmp_path / "train.npz", images=train.images, labels=np.asarray(train.labels))
    shutil.copytree(bundle.path, tmp_path / "models" / "toy" / "1")

    def fit(version, detector, *more):
        folder = tmp_path / "models" / "toy" / str(version)
        data = str(tmp_path / "train.npz")
        arguments = ["fit", str(folder), "--detector", detector, "--data", data, *more]
        return CliRunner().invoke(command, arguments)

    return fit


@pytest.mark.parametrize("detector", ["vim", "relative_mahalanobis"])
def test_the_served_score_is_the_fitted_one(fit, detector, bundle, make_context, tmp_path):
    done = fit(1, detector)
    assert done.exit_code == 0, done.output
    models = tmp_path / "models"
    written = Bundle(models / "toy" / "2")
    assert written.names("detectors") == (detector,)
    assert written.model_digest() == bundle.model_digest()
    threshold = Threshold.from_arrays(written.arrays(f"detectors/{detector}.npz"))
    assert threshold.low <= threshold.value <= threshold.high
    assert f"threshold {threshold.value:.6g}" in done.output
    with (
        running_server(models=models, data_dir=tmp_path / "var") as address,
        connect(address) as client,
    ):
        served = client.model("toy")
        assert served.info.version == "2"
        options = Options(detectors=("knn",))
        context = make_context(served=served, bundle=written, options=options)
        result = OutOfDistribution(resamples=50).run(context)
    assert result.metrics["served_score.max_abs_error"].value < 1e-3
    accepted = result.metrics["served_threshold.known.accepted"]
    expected = np.mean(result.items["served.known"] <= threshold.value)
    assert accepted.value == expected
    assert accepted.value > 0.7


def test_a_detector_that_a_server_cannot_feed_is_refused(fit):
    done = fit(1, "beyond")
    assert isinstance(done.exception, InvalidInput)
    assert "a server can run" in str(done.exception)


def test_the_share_to_accept_is_a_choice(fit, tmp_path):
    assert fit(1, "knn", "--accepted", "0.8").exit_code == 0
    arrays = Bundle(tmp_path / "models" / "toy" / "2").arrays("detectors/knn.npz")
    assert Threshold.from_arrays(arrays).accepted == pytest.approx(0.8)
