"""Attacks through real gRPC: the budget by the client's own count, the server's own search."""

from dataclasses import replace

import numpy as np
import pytest

from embedkit.client.sync import connect
from embedkit.evaluate.attack import Target, attacks, run_attack, subset
from embedkit.evaluate.attacks.no_box import NoBox
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.tasks.robustness import Robustness
from embedkit.evaluate.threat import Threat
from embedkit.serve.server import running_server


@pytest.fixture
def served(bundle, source, tmp_path):
    """130 images, so that four lanes ask at once, on the kNN vote of a served encoder."""
    with (
        running_server(models=bundle.path.parent.parent, data_dir=tmp_path) as address,
        connect(address) as client,
    ):
        victim = client.model("toy")
        train, test = source.dataset(200), source.dataset(400, seed=1)
        head = KnnHead(victim.embed(train.images), train.labels, test.labels)
        right = np.flatnonzero(head.decide(victim.embed(test.images)) == test.labels)[:130]
        assert len(right) == 130
        head = KnnHead(head.bank, head.bank_labels, test.labels[right])
        yield Target(victim, head, test.images[right], tuple(map(str, right)))


@pytest.mark.parametrize("name", ["square", "simba", "nes", "hop_skip_jump", "bayes_opt"])
def test_the_budget_holds_on_the_wire(served, name):
    before = served.victim.usage
    outcome = run_attack(attacks.get(name)(), served, Threat("linf", 3, 11))
    after = served.victim.usage
    sent = after.images - before.images - len(served.images)  # the final check
    assert sent == outcome.usage.images == outcome.queries.sum()
    assert 0 < outcome.queries.max() <= 11
    assert outcome.usage.bytes_sent >= sent * served.images[0].nbytes
    assert outcome.usage.calls < after.calls - before.calls
    assert outcome.usage.calls < outcome.usage.images / 10


def test_no_box_asks_nothing_but_whether_it_fooled(served):
    before = served.victim.usage.images
    few = replace(
        served,
        head=subset(served.head, np.arange(20)),
        images=served.images[:20],
        ids=served.ids[:20],
    )
    method = NoBox(training=20, steps=10)
    outcome = run_attack(method, few, Threat("linf", 60))
    assert served.victim.usage.images - before == 20
    assert outcome.usage.images == outcome.queries.sum() == 0
    decided = few.head.decide(served.victim.embed(outcome.adversarial))
    assert np.array_equal(outcome.success, decided != few.head.labels)
    assert outcome.success.any()


def test_the_servers_own_search_is_attacked(bundle, source, tmp_path):
    options = Options(
        attack_images=30,
        attacks=("square",),
        heads=("search",),
        radii_255=(16.0,),
        square_queries=20,
        attack_checks=False,
    )
    train, test = source.dataset(120, name="train"), source.dataset(40, seed=1)
    with (
        running_server(models=bundle.path.parent.parent, data_dir=tmp_path) as address,
        connect(address) as client,
    ):
        model = client.model("toy")
        context = Context(model, train, test, bundle=bundle, options=options)
        before = client.usage.calls
        own = Robustness().run(context)
        asked = client.usage.calls - before
        assert client.collections() == []
        before = client.usage.calls
        exact = Robustness().run(replace(context, served=Embedding(model)))
        without = client.usage.calls - before
    # Every question is a call to embed and one to search, and both are counted.
    assert asked > without + own.items["search.square.16.queries"].max()
    assert own.cost["query_calls"] == 2 * exact.cost["query_calls"]
    assert own.cost["query_bytes"] > exact.cost["query_bytes"]
    assert own.warnings == exact.warnings
    for name, metric in exact.metrics.items():
        assert own.metrics[name].value == pytest.approx(metric.value, abs=0.05), name


class Embedding:
    """A served model without its collections."""

    def __init__(self, served):
        self.embed, self.digest, self.dim = served.embed, served.digest, served.dim
        self.input = served.input
