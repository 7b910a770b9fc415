"""Attacks by queries through real gRPC: the budget by the client's own count."""

import numpy as np
import pytest

from embedkit.client.sync import connect
from embedkit.evaluate.attack import Target, attacks, run_attack
from embedkit.evaluate.oracle import KnnHead
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
    assert outcome.usage.calls < outcome.usage.images / 10
