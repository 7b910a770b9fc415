"""``embedkit top`` at a real server."""

import numpy as np
import pytest
from click.testing import CliRunner

import embedkit
from embedkit.bench.models import write_network
from embedkit.bench.serving.server import own_server
from embedkit.cli import cli
from embedkit.errors import Unavailable


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    bundle = write_network(tmp_path_factory.mktemp("models"), "light")
    with own_server(bundle, cores=(), threads=1) as target:
        yield target


def top(*arguments):
    return CliRunner().invoke(cli, ["top", *arguments, "--once", "--every", "0.2"])


def test_one_table_for_scripts(served):
    with embedkit.connect(served.address) as client:
        client.embed(np.zeros((3, 32, 32, 3), np.uint8))
    result = top("--server", served.address, "--metrics", served.metrics)
    assert result.exit_code == 0, result.exception
    head, refused, *table = result.output.splitlines()
    assert head.startswith(f"{served.address}: ")
    assert "% CPU" in head
    assert refused == "refused: nothing"
    assert any(line.split()[:4] == ["light", "1", "CPU", "0.0"] for line in table)
    assert any(line.startswith("EmbeddingService/Embed") for line in table)


def test_what_does_not_answer_is_told(served):
    result = top("--server", served.address, "--metrics", "127.0.0.1:1")
    assert isinstance(result.exception, Unavailable)
    assert "--metrics-bind" in str(result.exception)
