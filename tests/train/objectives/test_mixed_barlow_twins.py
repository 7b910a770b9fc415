"""Mixed Barlow Twins: the mixed view, and the mixed correlations written with loops."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.barlow_twins import BarlowTwins
from embedkit.train.objectives.mixed_barlow_twins import MixedBarlowTwins


def correlation(first, second):
    """Mean product of standardised dimensions, one pair of dimensions at a time."""
    first, second = ((z - z.mean(axis=0)) / z.std(axis=0) for z in (first, second))
    d = first.shape[1]
    return np.array([[np.mean(first[:, i] * second[:, j]) for j in range(d)] for i in range(d)])


def test_the_third_view_is_a_mixture(rng):
    views = torch.tensor(rng.random((2, 5, 1, 3, 3)), dtype=torch.float32)
    changed = MixedBarlowTwins().transform(views, torch.Generator().manual_seed(3))
    share, partner = changed.notes["share"], changed.notes["partner"]
    assert torch.equal(changed.views[:2], views)
    assert 0 <= share[0] <= 1
    assert sorted(partner.tolist()) == [0, 1, 2, 3, 4]
    for i in range(5):
        expected = share[i] * views[0, i] + (1 - share[i]) * views[1, partner[i]]
        assert torch.allclose(changed.views[2, i], expected, atol=1e-6)


def test_correlations_of_the_mixed_view(rng):
    z, partner, share = rng.normal(size=(3, 12, 4)), rng.permutation(12), 0.3
    loss = MixedBarlowTwins(redundancy=0.2, mixing=3.0)(_batch(z, partner, share)).parts
    first, second, mixed = z
    total = 0.0
    for view in (first, second):
        wanted = share * correlation(first, view)
        wanted += (1 - share) * correlation(second[partner], view)
        total += np.sum((correlation(mixed, view) - wanted) ** 2)
    assert loss["mixing"].item() == pytest.approx(0.2 * 3.0 * total, rel=1e-3)


def test_the_rest_is_barlow_twins(rng):
    z = rng.normal(size=(3, 8, 4))
    loss = MixedBarlowTwins(redundancy=0.2, mixing=0.0)(_batch(z, np.arange(8), 0.5)).total
    two = torch.tensor(z[:2], dtype=torch.float32)
    plain = BarlowTwins(redundancy=0.2)(Batch(two, two)).total
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


def test_without_notes_it_says_what_is_missing(rng):
    z = torch.tensor(rng.normal(size=(3, 4, 3)), dtype=torch.float32)
    with pytest.raises(InvalidInput, match="batch with notes of transform"):
        MixedBarlowTwins()(Batch(z, z))


@pytest.mark.parametrize("arguments", [{"redundancy": -1.0}, {"mixing": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        MixedBarlowTwins(**arguments)


def _batch(z, partner, share):
    tensor = torch.tensor(z, dtype=torch.float32)
    notes = {"partner": torch.tensor(partner), "share": torch.full((len(partner),), share)}
    return Batch(tensor, tensor, notes=notes)
