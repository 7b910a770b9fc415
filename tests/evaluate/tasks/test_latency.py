import time

import numpy as np
import pytest

from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.latency import Latency, _quantile


class Counting:
    dim, digest = 2, "sha256:counting"

    def __init__(self, source):
        self.input, self.sizes = source.spec, []

    def embed(self, images):
        self.sizes.append(len(images))
        time.sleep(0.001)
        return np.ones((len(images), 2), np.float32)


def test_calls_of_each_size_are_timed(make_context, source):
    served = Counting(source)
    result = Latency(sizes=(1, 100)).run(
        make_context(served=served, options=Options(latency_calls=30))
    )
    assert served.sizes == [1] * 35 + [100] * 35
    assert result.cost == {"images": 35 + 3500}
    times = result.items["1.ms"]
    assert len(times) == 30
    assert times.min() >= 1
    assert result.metrics["1.p50_ms"].value == np.sort(times)[14]
    rate = result.metrics["100.images_per_s"].value
    assert rate == 1000 * 3000 / result.items["100.ms"].sum()


def test_intervals_hold_the_true_quantile_as_often_as_they_say(rng):
    hits = {0.5: 0, 0.95: 0}
    for _ in range(400):
        drawn = rng.exponential(size=200)
        for share in hits:
            low, high = _quantile(drawn, share).ci
            hits[share] += low <= -np.log(1 - share) <= high
    assert all(372 <= count <= 396 for count in hits.values())  # 95 %, +- 3 sd of 400


def test_a_far_quantile_of_few_calls_has_no_bound(rng):
    assert _quantile(rng.random(30), 0.99).ci is None


@pytest.mark.parametrize(("share", "least"), [(0.95, 72), (0.99, 368)])
def test_an_interval_needs_as_many_calls_as_the_docs_say(rng, share, least):
    times = rng.random(least)
    assert _quantile(times[1:], share).ci is None
    assert _quantile(times, share).ci is not None
    assert f"p{100 * share:g} from {least} on" in " ".join((Latency.__doc__ or "").split())
    assert Options().latency_calls == 100


def test_files_are_sent_as_they_are(make_context, source, files):
    from dataclasses import replace

    test = source.dataset(5)
    encoded = replace(test, images=files(test.images), digest="")
    result = Latency(sizes=(3,)).run(
        make_context(test=encoded, options=Options(latency_calls=2))
    )
    assert result.status == "ok"
