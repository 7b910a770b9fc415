"""The recall of collections: by the server in the background, and by the command."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import embedkit
from embedkit.cli import cli
from embedkit.errors import StoreDamaged
from embedkit.retrieve.recall import measured_recall
from embedkit.retrieve.store import Hits
from embedkit.retrieve.stores.local import LocalStore
from embedkit.serve.config import ServerConfig
from embedkit.serve.observe.recall import RecallWatch
from embedkit.serve.observe.scrape import fetch
from embedkit.serve.server import Server, running_server
from embedkit.types import Collection


@pytest.fixture
def store(tmp_path, rng):
    store = LocalStore(tmp_path)
    store.create(Collection("points", dim=8))
    store.upsert("points", [str(i) for i in range(60)], rng.normal(size=(60, 8)).astype("f4"))
    yield store
    store.close()


def kept(hits, k):
    """The best hits whose number cannot be divided by three."""
    ranks = [i for i, id_ in enumerate(hits.ids) if int(id_) % 3][:k]
    return Hits([hits.ids[i] for i in ranks], hits.scores[ranks], hits.slots[ranks])


class Forgetful:
    """A store whose index does not find every third item."""

    def __init__(self, store):
        self.sample, self.describe, self.collections = (
            store.sample,
            store.describe,
            store.collections,
        )
        self.searches = 0
        self._store = store

    def search(self, name, query):
        if query.params.exact:
            return self._store.search(name, query)
        self.searches += 1
        answer = self._store.search(name, replace(query, k=30))
        hits = tuple(kept(h, query.k) for h in answer.hits)
        return replace(answer, hits=hits, exact=False)


def test_exact_search_finds_all_and_a_forgetful_one_does_not(store):
    whole = measured_recall(store, "points", k=10, queries=40)
    assert (whole.value, whole.queries, whole.k, whole.interval[1]) == (1, 40, 10, 1)
    less = measured_recall(Forgetful(store), "points", k=10, queries=60)
    # Two of three items are left: about two of three neighbours are found.
    assert less.value == pytest.approx(2 / 3, abs=0.1)
    assert less.interval[0] < less.value < less.interval[1]


def test_nothing_to_compare_with_is_no_number(store):
    store.create(Collection("empty", dim=8))
    assert measured_recall(store, "empty") is None
    store.upsert("empty", ["one"], np.ones((1, 8), np.float32))
    assert measured_recall(store, "empty") is None


def test_only_what_has_changed_is_measured_again(store):
    forgetful = Forgetful(store)
    watch = RecallWatch(lambda: forgetful, every_s=0)  # type: ignore[return-value]
    watch.measure()
    ((labels, value),) = watch.values()
    assert labels == ("points", "10")
    assert 0.4 < value < 1
    watch.measure()
    assert forgetful.searches == 1
    store.upsert("points", ["60"], np.ones((1, 8), np.float32))
    watch.measure()
    assert forgetful.searches == 2
    store.drop("points")
    watch.measure()
    assert watch.values() == []


class Failing(Forgetful):
    """A store whose searches of one collection fail, whatever the error."""

    def __init__(self, store, error):
        super().__init__(store)
        self.rounds = 0
        self._error = error
        self.collections = self._collections

    def _collections(self):
        self.rounds += 1
        return self._store.collections()

    def search(self, name, query):
        if name == "broken":
            raise self._error
        return super().search(name, query)


@pytest.mark.parametrize("error", [StoreDamaged("a bad page"), RuntimeError("a bug")])
def test_a_collection_that_fails_hides_no_other_and_ends_no_watch(
    store, rng, wait_for, caplog, error
):
    vectors = rng.normal(size=(3, 8)).astype("f4")
    store.create(Collection("broken", dim=8))
    store.upsert("broken", ["0", "1", "2"], vectors)
    failing = Failing(store, error)
    watch = RecallWatch(lambda: failing, every_s=0.02)  # type: ignore[return-value]
    watch.start()
    wait_for(lambda: failing.rounds > 2)
    watch.stop()
    assert [labels for labels, _ in watch.values()] == [("points", "10")]
    assert "the recall of 'broken' could not be measured" in caplog.text


def test_the_server_tells_it_as_a_metric(tiny_models, tmp_path, rng):
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        metrics_bind="127.0.0.1:0",
        recall_s=0.05,
    )
    server = Server(config)
    try:
        with embedkit.connect(f"127.0.0.1:{server.start()}") as client:
            client.create_collection("points", dim=4)
            client.upsert("points", ["a", "b", "c"], vectors=rng.normal(size=(3, 4)))
        limit = time.monotonic() + 20
        labels = {"collection": "points", "k": "10"}
        while fetch(server.metrics_address).value("embedkit_index_recall_at_k", **labels) != 1:
            assert time.monotonic() < limit
            time.sleep(0.02)
    finally:
        server.stop(5)


def test_the_command_compares_both_searches(tiny_models, tmp_path, rng):
    with (
        running_server(models=tiny_models, data_dir=tmp_path / "var") as address,
        embedkit.connect(address) as client,
    ):
        client.create_collection("points", dim=4)
        client.upsert("points", [str(i) for i in range(30)], vectors=rng.normal(size=(30, 4)))
        arguments = ["index", "recall", "points", "--server", address, "-k", "5"]
        result = CliRunner().invoke(cli, [*arguments, "--queries", "20", "--json"])
        assert result.exit_code == 0, (result.output, result.exception)
        found = json.loads(result.output)
        assert (found["recall"], found["queries"], found["k"], found["worst"]) == (1, 20, 5, 1)
        assert 0.5 < found["ci"][0] < found["ci"][1] == 1
        said = CliRunner().invoke(cli, arguments).output
        assert said.startswith("recall@5 1.0000 [")
        client.create_collection("empty", dim=4)
        bad = CliRunner().invoke(cli, ["index", "recall", "empty", "--server", address])
        assert "at least two vectors" in str(bad.exception)
