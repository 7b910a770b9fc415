import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from embedkit.evaluate.tasks.clustering import Clustering


def test_scores_are_those_of_the_groups(make_context, noisy):
    result = Clustering(starts=3).run(make_context(served=noisy))
    labels, groups = result.items["labels"], result.items["groups"]
    assert len(set(groups.tolist())) == 4
    nmi = normalized_mutual_info_score(labels, groups)
    assert result.metrics["nmi"].value == pytest.approx(nmi)
    assert result.metrics["ari"].value == pytest.approx(adjusted_rand_score(labels, groups))
    largest = sum(np.bincount(labels[groups == g]).max() for g in set(groups.tolist()))
    assert result.metrics["purity"].value == largest / 80
    assert 0.05 < nmi < 1
    for name in ("nmi", "ari", "purity"):
        low, high = result.metrics[name].ci
        assert low < result.metrics[name].value < high


def test_the_best_start_is_that_with_the_least_spread(make_context, noisy, embedded):
    context = make_context(served=noisy)
    z, _ = embedded(context.test)

    def spread(groups):
        return sum(
            ((z[groups == g] - z[groups == g].mean(axis=0)) ** 2).sum() for g in range(4)
        )

    every = [Clustering(starts=n).run(context).items["groups"] for n in (1, 6)]
    assert spread(every[1]) <= spread(every[0]) + 1e-9
