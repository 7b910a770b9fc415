"""What every attack promises, by name."""

from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import embedkit.evaluate.attacks
from embedkit.encoders.encoder import build_encoder
from embedkit.evaluate.attack import Target, attacks, run_attack
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.threat import Threat
from embedkit.preprocess import InputSpec

NAMES = attacks.names()
RADII = {"linf": 32, "l2": 160, "patch": 4}
QUERIES = 60
FEW = {"steps": 8, "places": 2, "training": 30}


def pytest_generate_tests(metafunc):
    """Every attack, under every norm that it knows where a test asks for a threat."""
    if "norm" in metafunc.fixturenames:
        pairs = [(name, norm) for name in NAMES for norm in sorted(attacks.get(name).norms)]
        metafunc.parametrize(("name", "norm"), pairs)
    elif "name" in metafunc.fixturenames:
        metafunc.parametrize("name", NAMES)


@pytest.fixture
def method(name):
    """The attack with few steps and places, which is enough on a toy."""
    kind = attacks.get(name)
    known = {field.name for field in fields(kind)}
    few = {} if name == "universal" else FEW
    return kind(**{key: value for key, value in few.items() if key in known})


@pytest.fixture
def threat(norm):
    if norm == "patch":
        return Threat.patch(RADII[norm], QUERIES)
    return Threat(norm, RADII[norm], query_limit=QUERIES)


@pytest.fixture(scope="session")
def target():
    """24 digits that an untrained encoder classifies correctly from 500 others."""
    torch.set_num_threads(1)
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    config = {"name": "resnet", "input": InputSpec(8, 8, 1).to_dict(), "width": 8}
    model = TorchEmbedder(build_encoder({**config, "blocks": [1, 1]}, seed=0), "sha256:toy")
    bank = model.embed(images[:500])
    head = KnnHead(bank, labels[:500], labels[500:])
    right = np.flatnonzero(head.decide(model.embed(images[500:])) == labels[500:])[:24]
    head = replace(head, labels=labels[500:][right])
    return Target(model, head, images[500:][right], tuple(map(str, right)), model)


@pytest.fixture(scope="module")
def seen():
    """Outcomes by attack and threat, each computed once."""
    return {}


@pytest.fixture
def outcome(seen, method, threat, target):
    key = type(method), threat
    if key not in seen:
        seen[key] = run_attack(method, target, threat)
    return seen[key]


@dataclass
class Stubborn:
    """A victim that answers as the first one does while it is searched, and then as clean.

    This is what a served model looks like that differs from its twin, or a method that reports
    what it has not found.
    """

    clean: np.ndarray
    dim: int
    digest: str = "sha256:stubborn"

    def embed(self, images):
        return np.resize(self.clean, (len(images), self.dim))


def test_each_file_registers_its_own_name(name):
    files = {p.stem for p in Path(embedkit.evaluate.attacks.__path__[0]).glob("[!_]*.py")}
    assert name in files
    assert attacks.get(name).__module__ == f"embedkit.evaluate.attacks.{name}"
    assert attacks.summary(name)


def test_it_declares_what_it_needs(method, name):
    assert method.needs <= {"scores", "decisions", "gradient"}
    assert method.needs or name == "no_box"
    assert method.norms <= {"linf", "l2", "patch"}
    assert method.norms


def test_it_is_a_frozen_value(method):
    with pytest.raises((FrozenInstanceError, AttributeError)):
        method.anything = 1
    assert method == replace(method)


def test_it_stays_in_the_threat_and_in_range(outcome, threat, target):
    delta = outcome.adversarial.astype(int) - target.images
    if threat.norm == "patch":
        size = 1 + np.array([max(map(np.ptp, np.nonzero(d.any(axis=2)))) for d in delta])
    else:
        lengths = (delta**2).sum(axis=(1, 2, 3)) ** 0.5
        size = np.abs(delta) if threat.norm == "linf" else lengths
    assert size.max() <= threat.size
    assert outcome.adversarial.dtype == np.uint8
    np.testing.assert_allclose(outcome.distances.max(), size.max())


def test_success_is_what_the_victim_says(outcome, target):
    decided = target.head.decide(target.victim.embed(outcome.adversarial))
    assert np.array_equal(outcome.success, decided != target.head.labels)


def test_it_never_reports_a_false_success(method, threat, target):
    clean = target.victim.embed(target.images)
    stubborn = replace(target, victim=Stubborn(clean, target.victim.dim))
    assert not run_attack(method, stubborn, threat).success.any()


def test_it_counts_and_respects_queries(outcome, method):
    assert outcome.usage.images == outcome.queries.sum()
    assert outcome.queries.max() <= QUERIES
    if not method.needs & {"scores", "decisions"}:
        assert outcome.queries.max() == 0
    elif "gradient" not in method.needs:
        assert outcome.queries.min() > 0


def test_it_beats_random_noise(outcome, method, threat, target):
    rng = np.random.default_rng(0)
    signs = 255 * rng.choice([-1.0, 1.0], (20, *target.images.shape))
    if threat.norm == "patch":
        inside = np.arange(8) < threat.side_px
        signs *= (inside[:, None] & inside)[..., None]
    rows = np.arange(len(target.images))

    def fooled(one):
        noisy = threat.quantise((target.images + one).astype(np.float32), target.images)
        margins = target.head.margins(target.victim.embed(noisy), rows)
        return float((margins <= 0).mean())

    by_noise = np.mean([fooled(one) for one in signs])
    # Whoever sees nothing of the victim has less to go by.
    assert outcome.success.mean() > by_noise + (0.1 if method.needs else 0)


def test_it_repeats_and_depends_on_the_seed(outcome, method, threat, target):
    first, again = outcome, run_attack(method, target, threat)
    other = run_attack(method, target, threat, seed=4)
    assert np.array_equal(first.adversarial, again.adversarial)
    if getattr(method, "is_random", True):
        assert not np.array_equal(first.adversarial, other.adversarial)


def test_it_leaves_the_originals_alone(outcome, target):
    digits = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    assert len(outcome.success) == len(target.images)
    assert np.array_equal(target.images, digits[500:][[int(i) for i in target.ids]])
