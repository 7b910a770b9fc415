"""The other engines' protocol, and each of them where it can be installed."""

import sys

import numpy as np
import pytest

from embedkit.bench.index.vectors import clustered, recall, truth
from embedkit.errors import Unavailable
from tools.peer_index import PEERS, engine, main
from tools.peer_process import Peer, install


@pytest.fixture
def files(tmp_path):
    vectors = clustered(2000, 16, queries=80)
    paths = tmp_path / "stored.npy", tmp_path / "queries.npy"
    for path, array in zip(paths, (vectors.stored, vectors.queries), strict=True):
        np.save(path, array)
    return vectors, paths


def test_an_engine_that_does_not_start_says_why(files):
    with (
        pytest.raises(Unavailable, match="No such file"),
        engine(Peer("gone", "gone.py"), sys.executable, files[1], 10),
    ):
        pass


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_engine_finds_and_tells_its_rate(peer, files, tmp_path):
    vectors, paths = files
    skipped = {}
    pythons = install([peer], tmp_path / "venvs", skipped, ("numpy",))
    if skipped:
        pytest.skip(str(skipped))
    with engine(peer, pythons[peer], paths, 10) as index:
        assert recall(index.search(128), truth(vectors, 10)) > 0.9
        for batch in (1, 64):
            assert index.measure(64, batch, 0.1).queries_per_s > 0
        assert index.build_s > 0


@pytest.mark.peer
@pytest.mark.slow
def test_the_table_has_a_line_per_engine(capsys):
    small = ["--size", "5000", "--dim", "16", "--queries", "64", "--seconds", "0.1"]
    main([*small, "--rounds", "1", "--kind", "flat", "--peer", "usearch"])
    said = capsys.readouterr().out
    assert "| embedkit flat |" in said
    assert "| usearch |" in said or "left out: usearch" in said
