"""Our black-box attacks against pyautoattack, foolbox and ART, on a network over CIFAR-10."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from embedkit.data.source import load_dataset
from embedkit.evaluate.attack import Target, run_attack
from embedkit.evaluate.attacks.boundary import Boundary
from embedkit.evaluate.attacks.hop_skip_jump import HopSkipJump
from embedkit.evaluate.attacks.simba import SimBA
from embedkit.evaluate.attacks.square import Square
from embedkit.evaluate.threat import Threat

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(3600)]

torch = pytest.importorskip("torch")

COUNT = 200
FEW = 40


@dataclass
class Logits:
    """A network as an embedder: the embedding is its logits."""

    network: Any
    dim: int = 10
    digest: str = "sha256:logits"

    def embed(self, images):
        pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            return self.network(pixels).numpy()


@dataclass(frozen=True)
class LogitHead:
    labels: np.ndarray

    def margins(self, embeddings, indices):
        rows, labels = np.arange(len(embeddings)), self.labels[indices]
        others = embeddings.astype(np.float64)
        own = others[rows, labels].copy()
        others[rows, labels] = -np.inf
        return own - others.max(axis=1)


@pytest.fixture(scope="module")
def target(test_data):
    """200 images of CIFAR-10 that a network trained on 8,000 others classifies correctly.

    In colour: of one channel every other small square of pyautoattack changes nothing and is a
    wasted query; ours takes the opposite sign then, as the authors' own code does.
    """
    path = test_data / "cifar10.zip"
    if not path.is_file():
        pytest.skip(f"no CIFAR-10 at {path}")
    data = load_dataset(f"{path}:test")
    images, truth = np.asarray(data.images), np.asarray(data.labels)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(3072, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    pixels = torch.tensor(images[:8000]).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor(truth[:8000])
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(6):
        for part in torch.randperm(len(labels)).split(128):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(pixels[part]), labels[part]).backward()
            optimiser.step()
    network.eval().requires_grad_(requires_grad=False)
    victim = Logits(network)
    others, truth = images[8000:], truth[8000:]
    right = np.flatnonzero(victim.embed(others).argmax(axis=1) == truth)[:COUNT]
    assert len(right) == COUNT
    return Target(victim, LogitHead(truth[right]), others[right], tuple(map(str, right)))


@pytest.fixture(scope="module")
def few(target):
    """The first of the images, for the attacks that take long."""
    head = LogitHead(target.head.labels[:FEW])
    return Target(target.victim, head, target.images[:FEW], target.ids[:FEW])


def as_pixels(target):
    return torch.tensor(target.images).permute(0, 3, 1, 2).float() / 255


def square_of_pyautoattack(target, radius, queries, seed):
    """Queries needed and success of each image."""
    module = pytest.importorskip("pyautoattack.square")
    attack = module.SquareAttack(
        target.victim.network,
        p_init=0.8,
        n_queries=queries,
        eps=radius / 255,
        norm="Linf",
        n_restarts=1,
        seed=seed,
        verbose=False,
        device="cpu",
        resc_schedule=True,
    )
    attack.init_hyperparam(as_pixels(target))
    labels = torch.tensor(target.head.labels)
    torch.random.manual_seed(seed)
    with torch.no_grad():
        counts, found = attack.attack_single_run(as_pixels(target), labels)
        fooled = target.victim.network(found).argmax(dim=1) != labels
    return counts.numpy().astype(int), fooled.numpy()


@pytest.mark.parametrize("radius", [2, 4, 8])
def test_square_is_as_strong_as_pyautoattacks(target, radius):
    """Robust accuracy within two standard errors, median queries within a fifth: 5 seeds."""
    budget = 500
    ours, theirs = [], []
    for seed in range(5):
        outcome = run_attack(Square(budget), target, Threat("linf", radius, budget), seed=seed)
        ours.append((outcome.queries_needed, outcome.success))
        theirs.append(square_of_pyautoattack(target, radius, budget, seed))

    def figures(runs):
        standing = np.mean([1 - success.mean() for _, success in runs])
        needed = np.concatenate([np.where(s, q, budget) for q, s in runs])
        return standing, float(np.median(needed)), float(np.mean(needed))

    mine, peers = figures(ours), figures(theirs)
    print(f"radius {radius}: ours {mine}, pyautoattack {peers}")  # noqa: T201
    error = np.sqrt(max(peers[0] * (1 - peers[0]), 1 / COUNT) / COUNT)
    assert abs(mine[0] - peers[0]) <= 2 * error
    # Where half of the images stand, the median is the budget for both.
    assert abs(mine[1] - peers[1]) <= max(0.2 * peers[1], 1)


def median_distance(outcome):
    return float(np.median(outcome.nearest)) / 255


def lengths(target, found):
    """Median L2 distance of what a peer found, where it fools; an image it lost is far away."""
    found = torch.as_tensor(np.asarray(found))
    labels = torch.tensor(target.head.labels)
    with torch.no_grad():
        fooled = (target.victim.network(found).argmax(dim=1) != labels).numpy()
    distances = (found - as_pixels(target)).flatten(1).norm(dim=1).numpy()
    return float(np.median(np.where(fooled, distances, np.inf)))


class Counted(torch.nn.Module):  # type: ignore[name-defined,misc]
    """Counts what a peer asks, and refuses nothing."""

    def __init__(self, network):
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, pixels):
        self.images += len(pixels)
        return self.network(pixels)


def foolbox_of(target):
    foolbox = pytest.importorskip("foolbox")
    counted = Counted(target.victim.network).eval()
    return foolbox, counted, foolbox.PyTorchModel(counted, bounds=(0, 1), device="cpu")


def at_equal_budget(method, target, queries, seed=0):
    """What ours finds with the queries that the peer used, never stopping early."""
    return run_attack(method, target, Threat("l2", 0.5, queries), seed=seed)


@pytest.mark.parametrize("steps", [4, 16])
def test_hop_skip_jump_comes_as_near_as_foolboxs(few, steps):
    foolbox, counted, model = foolbox_of(few)
    np.random.seed(0)
    torch.manual_seed(0)
    attack = foolbox.attacks.HopSkipJumpAttack(steps=steps)
    criterion = foolbox.criteria.Misclassification(torch.tensor(few.head.labels))
    found = attack.run(model, as_pixels(few), criterion)
    theirs = lengths(few, found)
    budget = counted.images // FEW
    ours = median_distance(at_equal_budget(HopSkipJump(queries=budget), few, budget))
    print(f"hop_skip_jump, {budget} queries: ours {ours:.4f}, foolbox {theirs:.4f}")  # noqa: T201
    assert ours <= 1.1 * theirs


def test_boundary_comes_as_near_as_foolboxs(few):
    foolbox, counted, model = foolbox_of(few)
    torch.manual_seed(0)
    criterion = foolbox.criteria.Misclassification(torch.tensor(few.head.labels))
    attack = foolbox.attacks.BoundaryAttack(
        init_attack=foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50), steps=1500
    )
    theirs = lengths(few, attack.run(model, as_pixels(few), criterion))
    budget = counted.images // FEW
    ours = median_distance(at_equal_budget(Boundary(queries=budget), few, budget))
    print(f"boundary, {budget} queries: ours {ours:.4f}, foolbox {theirs:.4f}")  # noqa: T201
    assert ours <= 1.1 * theirs


@pytest.mark.parametrize("step", [26, 51])
def test_simba_goes_as_far_as_arts(few, step):
    """Single values in random order, steps of 0.1 and 0.2: success, and how far it went.

    Distances and not queries, because ART always asks about both signs and ours about plus
    only where minus did not help.
    """
    estimators = pytest.importorskip("art.estimators.classification")
    evasion = pytest.importorskip("art.attacks.evasion")
    directions = 600

    def predict(pixels):
        with torch.no_grad():
            return few.victim.network(torch.tensor(pixels)).softmax(dim=1).numpy()

    model = estimators.BlackBoxClassifierNeuralNetwork(
        predict, (3, 32, 32), 10, channels_first=True, clip_values=(0, 1)
    )
    np.random.seed(0)
    attack = evasion.SimBA(
        model,
        attack="px",
        order="random",
        max_iter=directions,
        epsilon=step / 255,
        batch_size=1,
        verbose=False,
    )
    pixels = as_pixels(few).numpy()
    found = attack.generate(pixels, y=np.eye(10, dtype=np.float32)[few.head.labels])
    their_success = predict(found).argmax(axis=1) != few.head.labels
    their_lengths = np.linalg.norm((found - pixels).reshape(FEW, -1), axis=1)
    # Never at the edge of the ball, and between one and two queries per direction.
    method = SimBA(2 * directions, basis="pixel", step_255=step)
    outcome = run_attack(method, few, Threat("l2", 10_000, 2 * directions))
    both = outcome.success & their_success
    ours, theirs = (float(np.median(v[both])) for v in (outcome.distances / 255, their_lengths))
    print(  # noqa: T201
        f"simba, step {step}: fooled {outcome.success.mean():.3f} ours, "
        f"{their_success.mean():.3f} art; median length {ours:.3f}, {theirs:.3f}"
    )
    error = np.sqrt(max(their_success.mean() * (1 - their_success.mean()), 1 / FEW) / FEW)
    assert outcome.success.mean() >= their_success.mean() - 2 * error
    assert ours <= 1.1 * theirs
