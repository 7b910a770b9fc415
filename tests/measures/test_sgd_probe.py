import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.measures.sgd_probe import BATCH, _train, sgd_probe


def clusters(rng, n, spread):
    labels = rng.integers(0, 3, n)
    means = np.eye(3, 8)
    return (means[labels] + spread * rng.normal(size=(n, 8))).astype(np.float32), labels


def test_it_takes_the_steps_of_torch(rng):
    """The same batches through torch's SGD with momentum and cosine schedule."""
    x, y = clusters(rng, BATCH + 40, 0.5)
    x = unit(x)
    ours = _train(x, y, np.array([0.3, 2.0], np.float32), 3, 4, np.random.default_rng(9))
    for index, rate in enumerate((0.3, 2.0)):
        model = torch.nn.Linear(8, 3)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 8)
        order_of = np.random.default_rng(9)
        for _ in range(4):
            order = order_of.permutation(len(x))
            for start in range(0, len(x), BATCH):
                rows = torch.from_numpy(order[start : start + BATCH])
                logits = model(torch.from_numpy(x)[rows])
                loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        np.testing.assert_allclose(ours[index, :-1].T, model.weight.detach(), atol=2e-4)
        np.testing.assert_allclose(ours[index, -1], model.bias.detach(), atol=2e-4)


def test_it_learns_what_can_be_learnt(rng):
    x, y = clusters(rng, 900, 0.25)
    found, rate = sgd_probe(x[:600], y[:600], x[600:], classes=3)
    assert (found == y[600:]).mean() > 0.93
    assert rate > 0.1


def test_the_rate_is_chosen_without_the_test_images(rng):
    x, y = clusters(rng, 300, 0.4)
    _, rate = sgd_probe(x, y, x[:5], classes=3, seed=3)
    other, same = sgd_probe(x, y, -x[:50], classes=3, seed=3)
    assert rate == same
    assert other.shape == (50,)


def test_wrong_input_is_answered_in_words():
    z = np.eye(3, dtype=np.float32)
    with pytest.raises(InvalidInput, match="labels from 0 to 1, got 0 to 2"):
        sgd_probe(z, np.arange(3), z, classes=2)
    with pytest.raises(InvalidInput, match="rates above 0"):
        sgd_probe(z, np.arange(3), z, classes=3, rates=())
    with pytest.raises(InvalidInput, match="same d"):
        sgd_probe(z, np.arange(3), z[:, :1], classes=3)
