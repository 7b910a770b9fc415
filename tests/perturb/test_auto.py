"""Auto-PGD against the paper's algorithm, written out image by image in numpy."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.auto import auto_ascend, checkpoints
from embedkit.perturb.gradient import random_start

PIXELS = 6


def test_checkpoints_are_the_papers():
    """p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06), w_j = ceil(p_j * N)."""
    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    wanted = tuple(round(100 * share) for share in shares[1:] if share <= 1)
    assert checkpoints(100) == wanted
    assert list(checkpoints(7)) == sorted(set(checkpoints(7)))


class Bumpy:
    """A loss with many maxima, and its gradient, in numpy and in torch."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.waves = 14 * rng.normal(size=(5, PIXELS))
        self.slope = rng.normal(size=PIXELS)

    def value(self, x):
        return float(np.sin(self.waves @ x).sum() + self.slope @ x)

    def gradient(self, x):
        return self.waves.T @ np.cos(self.waves @ x) + self.slope

    def judge(self, pixels):
        flat = pixels.flatten(1)
        waves, slope = torch.tensor(self.waves), torch.tensor(self.slope)
        values = (flat @ waves.T).sin().sum(dim=1) + flat @ slope
        return values, torch.ones_like(values)


def reference(loss, x0, start, radius, steps, norm):
    """Algorithm 1 of Croce and Hein 2020, with alpha = 0.75 and rho = 0.75."""

    def into(z):
        delta = z - x0
        if norm == "linf":
            delta = np.clip(delta, -radius, radius)
        else:
            delta = delta * min(1.0, radius / max(np.linalg.norm(delta), 1e-300))
        return np.clip(x0 + delta, 0, 1)

    def direction(g):
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)

    def values_of(points):
        return [loss.value(p) for p in points]

    eta, x = 2 * radius, into(x0 + start)
    path = [x]
    nxt = into(x + eta * direction(loss.gradient(x)))
    best = max([x, nxt], key=loss.value)
    prev, x = x, nxt
    path.append(x)
    due = set(checkpoints(steps))
    last_w, best_then, halved_then = 0, loss.value(path[0]), True
    values = values_of(path)
    for k in range(1, steps + 1):
        if k > 1:
            z = into(x + eta * direction(loss.gradient(x)))
            nxt = into(x + 0.75 * (z - x) + 0.25 * (x - prev))
            prev, x = x, nxt
            values.append(loss.value(x))
            if values[-1] > loss.value(best):
                best = x
        if k in due:
            improved = sum(values[i + 1] > values[i] for i in range(last_w, k))
            first = improved <= 0.75 * (k - last_w)
            second = not halved_then and best_then >= loss.value(best)
            halved_then, best_then, last_w = first or second, loss.value(best), k
            if halved_then:
                eta, x = eta / 2, best
    return best


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_papers_algorithm(norm):
    loss, count, steps, radius = Bumpy(0), 8, 40, 0.3
    images = np.random.default_rng(1).uniform(0.1, 0.9, size=(count, PIXELS))
    shape = (count, 1, 2, 3)
    generator = torch.Generator().manual_seed(0)
    start = random_start(shape, norm, radius, generator).double()
    batch = torch.tensor(images).view(shape)
    found = auto_ascend(loss.judge, batch, start, norm, radius, steps)
    for row in range(count):
        wanted = reference(loss, images[row], start[row].flatten().numpy(), radius, steps, norm)
        np.testing.assert_allclose(found.pixels[row].flatten().numpy(), wanted, atol=1e-9)


def test_halving_finds_more_than_one_step_size():
    loss = Bumpy(3)
    images = torch.full((1, 1, 2, 3), 0.5, dtype=torch.float64).repeat(50, 1, 1, 1)
    start = random_start(images.shape, "linf", 0.3, torch.Generator().manual_seed(0)).double()
    few, many = (
        auto_ascend(loss.judge, images, start, "linf", 0.3, steps).values.mean()
        for steps in (4, 60)
    )
    assert many > few + 0.5


def test_an_iterate_that_reaches_the_goal_is_kept_before_one_with_more_loss():
    def judge(pixels):
        level = pixels.flatten(1).mean(dim=1)
        # The loss grows with the level, but the goal is a narrow band on the way.
        return level, (level - 0.6).abs() - 0.02

    images = torch.full((1, 1, 2, 2), 0.5)
    start = torch.full_like(images, 0.09)
    found = auto_ascend(judge, images, start, "linf", 0.4, 10)
    assert found.margins is not None
    assert float(found.margins) <= 0
    assert float(found.pixels.mean()) == pytest.approx(0.59)


def test_no_steps_are_refused():
    images = torch.zeros(1, 1, 1, 1)
    with pytest.raises(InvalidInput, match="expected steps >= 1, got 0"):
        auto_ascend(lambda p: (p.sum((1, 2, 3)),) * 2, images, images, "linf", 0.1, 0)
