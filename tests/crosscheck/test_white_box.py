"""Our white-box attacks against foolbox, ART and pyautoattack on the published ResNet-20."""

import numpy as np
import pytest
import torch

from embedkit.data.source import load_dataset
from embedkit.evaluate.attack import Problem, Target, run_attack
from embedkit.evaluate.attacks.apgd_ce import APGDCrossEntropy
from embedkit.evaluate.attacks.apgd_dlr import APGDDifferenceOfLogits
from embedkit.evaluate.attacks.auto import Auto
from embedkit.evaluate.attacks.fgsm import FGSM
from embedkit.evaluate.attacks.pgd import PGD
from embedkit.evaluate.measurement.victim.heads import LinearHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.threat import Threat
from embedkit.export.import_model import Architecture, import_torch
from embedkit.perturb.randomness import keys_of

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]

COUNT, STEPS = 200, 20
NEAR = Threat("linf", 1)
"""A radius at which about half of the images withstand; at 8 none does."""


class Classifier(torch.nn.Module):
    """Logits of pixels in [0, 1], for the peers."""

    def __init__(self, encoder, head):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("weight", torch.tensor(head.weight))
        self.register_buffer("bias", torch.tensor(head.bias))

    def forward(self, pixels):
        return self.encoder.encode(pixels).features @ self.weight.T + self.bias


@pytest.fixture(scope="module")
def target(test_data):
    """200 test images that the published network classifies correctly."""
    weights = test_data / "weights" / "resnet20_cifar10.safetensors"
    if not weights.is_file():
        pytest.skip(f"no published weights at {weights}")
    torch.set_num_threads(2)
    test = load_dataset(f"{test_data}/cifar10.zip:test").subset(range(300))
    shape = Architecture("resnet20", (32, 32, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    source = import_torch(weights, shape, class_names=test.class_names)
    twin = TorchEmbedder(source.encoder, "sha256:published", output="features")
    labels, features = np.asarray(test.labels), twin.embed(test.images)
    right = np.flatnonzero(source.head.logits(features).argmax(axis=1) == labels)[:COUNT]
    assert len(right) == COUNT
    head = LinearHead(source.head, labels[right])
    return Target(twin, head, test.images[right], tuple(map(str, right)), twin)


@pytest.fixture(scope="module")
def classifier(target):
    return Classifier(target.surrogate.encoder, target.head.head).eval()


@pytest.fixture(scope="module")
def pixels(target):
    return (torch.tensor(target.images).permute(0, 3, 1, 2).float() / 255).contiguous()


@pytest.fixture(scope="module")
def labels(target):
    return torch.tensor(target.head.labels)


@pytest.fixture(scope="module")
def sure(classifier, pixels, labels):
    """Whether the network is too sure of an image for the usual form of the cross-entropy."""
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(classifier(pixels), labels, reduction="none")
    return loss < 1e-3


def found(method, target, threat):
    """Pixels of a method before rounding, (n, c, h, w) in [0, 1]."""
    keys = keys_of(target.ids, 0)
    problem = Problem(target.images, keys, threat, target.head, None, target.surrogate)
    candidates = threat.project(method.run(problem).candidates, target.images)
    return torch.tensor(candidates).permute(0, 3, 1, 2) / 255


def standing(classifier, pixels, labels):
    with torch.no_grad():
        return int((classifier(pixels).argmax(dim=1) == labels).sum())


def share_of_equal_pixels(first, second, sure):
    """Of the images whose loss is large enough for the peers' gradients.

    Of the others these are rounding errors, because their cross-entropy subtracts two numbers
    that are equal to the last bit; ours does not.
    """
    assert (~sure).sum() >= 20
    return float(((first - second).abs() <= 1e-5)[~sure].double().mean())


def foolbox_model(classifier):
    foolbox = pytest.importorskip("foolbox")
    return foolbox, foolbox.PyTorchModel(classifier, bounds=(0, 1))


def art_classifier(classifier):
    estimators = pytest.importorskip("art.estimators.classification")
    loss = torch.nn.CrossEntropyLoss()
    return estimators.PyTorchClassifier(
        classifier, loss, (3, 32, 32), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def test_fgsm_is_foolboxs(classifier, target, pixels, labels, sure):
    foolbox, model = foolbox_model(classifier)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    theirs = attack.run(model, pixels, labels, epsilon=8 / 255)
    ours = found(FGSM("cross_entropy"), target, Threat("linf", 8))
    assert share_of_equal_pixels(ours, theirs, sure) > 0.9999


def test_fgsm_is_arts(classifier, target, pixels, labels, sure):
    evasion = pytest.importorskip("art.attacks.evasion")
    attack = evasion.FastGradientMethod(art_classifier(classifier), eps=8 / 255)
    theirs = torch.tensor(attack.generate(pixels.numpy(), labels.numpy()))
    ours = found(FGSM("cross_entropy"), target, Threat("linf", 8))
    assert share_of_equal_pixels(ours, theirs, sure) > 0.9999


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_from_the_clean_image_is_foolboxs(classifier, target, pixels, labels, sure, norm):
    foolbox, model = foolbox_model(classifier)
    kind = {
        "linf": "LinfProjectedGradientDescentAttack",
        "l2": "L2ProjectedGradientDescentAttack",
    }
    radius = {"linf": 8, "l2": 128}[norm]
    attack = getattr(foolbox.attacks, kind[norm])(rel_stepsize=0.4, steps=3, random_start=False)
    theirs = attack.run(model, pixels, labels, epsilon=radius / 255)
    pgd = PGD(3, "cross_entropy", relative_step=0.4, start="clean", keep="last")
    ours = found(pgd, target, Threat(norm, radius))
    # Every step after a differing sign differs too, for that image; lengths are rounded sums.
    assert share_of_equal_pixels(ours, theirs, sure) > {"linf": 0.99, "l2": 0.95}[norm]


def test_pgd_from_the_clean_image_is_arts(classifier, target, pixels, labels, sure):
    evasion = pytest.importorskip("art.attacks.evasion")
    attack = evasion.ProjectedGradientDescent(
        art_classifier(classifier),
        eps=8 / 255,
        eps_step=0.4 * 8 / 255,
        max_iter=3,
        num_random_init=0,
        batch_size=COUNT,
        verbose=False,
    )
    theirs = torch.tensor(attack.generate(pixels.numpy(), labels.numpy()))
    pgd = PGD(3, "cross_entropy", relative_step=0.4, start="clean", keep="last")
    assert share_of_equal_pixels(found(pgd, target, Threat("linf", 8)), theirs, sure) > 0.99


@pytest.mark.parametrize(
    ("method", "version"),
    [
        (APGDCrossEntropy(STEPS), "apgd-ce"),
        (APGDDifferenceOfLogits(STEPS), "apgd-dlr"),
        (APGDDifferenceOfLogits(STEPS, targets=9), "apgd-t"),
    ],
    ids=["ce", "dlr", "dlr-targeted"],
)
def test_apgd_leaves_no_more_standing_than_pyautoattack(
    classifier, target, pixels, labels, method, version, record_property
):
    autoattack = pytest.importorskip("pyautoattack").AutoAttack
    peer = autoattack(
        classifier,
        norm="Linf",
        eps=1 / 255,
        version="custom",
        attacks=[version],
        device="cpu",
        seed=0,
    )
    for part in (peer.apgd, peer.apgd_targeted):
        part.n_iter = STEPS
        part.n_restarts = 1
    theirs = peer.run_standard_evaluation(pixels, labels, batch_size=COUNT)[0]
    ours = found(method, target, NEAR)
    left = standing(classifier, ours, labels), standing(classifier, theirs, labels)
    record_property("standing, ours and pyautoattack's", left)
    assert 0 < left[1] < COUNT
    # Of images that the network is sure of our cross-entropy keeps its gradient and finds more.
    assert left[0] <= left[1] + 1


def test_the_ensembles_worst_case_is_not_above_pyautoattacks(
    classifier, target, pixels, labels, record_property
):
    autoattack = pytest.importorskip("pyautoattack").AutoAttack
    peer = autoattack(
        classifier,
        norm="Linf",
        eps=1 / 255,
        version="custom",
        attacks=["apgd-ce", "apgd-t", "fab-t", "square"],
        device="cpu",
        seed=0,
    )
    for part in (peer.apgd, peer.apgd_targeted, peer.fab):
        part.n_iter, part.n_restarts = STEPS, 1
    peer.square.n_queries = 200
    theirs = peer.run_standard_evaluation(pixels, labels, batch_size=COUNT)[0]
    outcome = run_attack(Auto(STEPS, queries=200), target, NEAR)
    ours, peers = int((~outcome.success).sum()), standing(classifier, theirs, labels)
    record_property("standing, ours and pyautoattack's", (ours, peers))
    # Ours counts after rounding to 8 bits, theirs before it.
    assert ours <= peers + 1
