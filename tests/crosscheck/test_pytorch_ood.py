"""Our detectors against pytorch-ood 0.4.0, which imports torchvision but needs none here."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr

from embedkit.bundle import Head
from embedkit.detect.detector import Observation, detectors
from embedkit.detect.detectors.fdbd import FDBD
from embedkit.detect.detectors.gen import GEN
from embedkit.detect.detectors.kl_matching import KLMatching
from embedkit.detect.detectors.knn import KNN
from embedkit.detect.detectors.mahalanobis import Mahalanobis
from embedkit.detect.detectors.nnguide import NNGuide
from embedkit.detect.detectors.relative_mahalanobis import RelativeMahalanobis
from embedkit.detect.detectors.she import SHE
from embedkit.detect.detectors.vim import ViM
from embedkit.evaluate.measurement.novelty import separation_metrics
from embedkit.measures.auroc import auroc

pytestmark = pytest.mark.peer

CLASSES, DIM = 5, 16


class _Anything(ModuleType):
    """A module in which every name is a class; only imports ever touch it."""

    def __init__(self, name):
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name):
        if f"{self.__name__}.{name}" in sys.modules:
            return sys.modules[f"{self.__name__}.{name}"]
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture(scope="module")
def peer():
    """pytorch_ood, with a stand-in for torchvision if that is not there or does not load."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("pytorch_ood") is None:
        pytest.skip("pytorch-ood is not installed")
    parts = ("", ".datasets", ".datasets.utils", ".models", ".models.resnet", ".transforms")
    names = [f"torchvision{part}" for part in (*parts, ".transforms.functional")]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, _Anything(name))
        import pytorch_ood.detector
        import pytorch_ood.metrics

        yield pytorch_ood


@pytest.fixture(scope="module")
def sets():
    """Train, known and novel observations under one head."""
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(CLASSES, DIM))
    head = Head(
        means.astype(np.float32),
        rng.normal(size=CLASSES).astype(np.float32),
        tuple("abcde"),
    )

    def observe(n, novelty):
        labels = rng.integers(0, CLASSES, n)
        features = means[labels] + rng.normal(size=(n, DIM))
        features = (features + novelty * rng.normal(size=(n, DIM))).astype(np.float32)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return Observation(unit, features, head.logits(features) / 20, labels, None, head)

    return observe(600, 0), observe(200, 0), observe(150, 2)


def torch_of(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def linear(observation):
    """The head as a torch layer, scaled as the logits are."""
    import torch

    layer = torch.nn.Linear(DIM, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch_of(observation.head.weight / 20))
        layer.bias.copy_(torch_of(observation.head.bias / 20))
    return layer


def agree(ours, theirs, *, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("msp", "MaxSoftmax"),
        ("max_logit", "MaxLogit"),
        ("energy", "EnergyBased"),
        ("entropy", "Entropy"),
    ],
)
def test_formulas_of_the_logits(peer, sets, name, kind):
    theirs = getattr(peer.detector, kind).score(torch_of(sets[1].logits))
    agree(detectors.get(name)().fit(sets[0]).score(sets[1]), theirs)


def test_gen_is_theirs_times_the_classes(peer, sets):
    theirs = peer.detector.GEN.score(torch_of(sets[1].logits)) * CLASSES
    agree(GEN().fit(sets[0]).score(sets[1]), theirs)


def test_kl_matching(peer, sets):
    theirs = peer.detector.KLMatching(None).fit_logits(torch_of(sets[0].logits))
    agree(
        KLMatching().fit(sets[0]).score(sets[1]),
        theirs.predict_logits(torch_of(sets[1].logits)),
    )


def test_knn(peer, sets):
    train, known, _ = sets
    theirs = peer.detector.KNN(None, k=20)
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    agree(KNN(20).fit(train).score(known), theirs.predict_features(torch_of(known.features)))


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (Mahalanobis(source="features"), "Mahalanobis"),
        (RelativeMahalanobis(source="features"), "RMD"),
    ],
)
def test_mahalanobis_in_ranks_and_up_to_a_constant(peer, sets, ours, kind):
    """Theirs sums where the papers average, and halves."""
    train = sets[0]
    theirs = getattr(peer.detector, kind)(None)
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    fitted = ours.fit(train)
    pairs = [
        (fitted.score(s), theirs.predict_features(torch_of(s.features)).numpy())
        for s in sets[1:]
    ]
    assert spearmanr(*pairs[0]).statistic >= 1 - 1e-6
    areas = [auroc(pairs[0][side], pairs[1][side].astype(float)) for side in (0, 1)]
    assert areas[0] == pytest.approx(areas[1], abs=1e-4)
    slope, offset = np.polyfit(*pairs[0], 1)
    np.testing.assert_allclose(slope * pairs[0][0] + offset, pairs[0][1], rtol=1e-2, atol=1e-4)


def test_vim(peer, sets):
    train, known, _ = sets
    layer = linear(train)
    head = Head(train.head.weight / 20, train.head.bias / 20, train.head.class_names)
    theirs = peer.detector.ViM(None, 6, layer.weight, layer.bias)
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    given = Observation(train.embeddings, train.features, train.logits, head=head)
    agree(
        ViM(principal=6).fit(given).score(known),
        theirs.predict_features(torch_of(known.features)),
        atol=1e-3,
    )


def test_she(peer, sets):
    train, known, _ = sets
    theirs = peer.detector.SHE(None, linear(train))
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    agree(SHE().fit(train).score(known), theirs.predict_features(torch_of(known.features)))


def test_nnguide(peer, sets):
    train, known, _ = sets
    theirs = peer.detector.NNGuide(None, linear(train), k=10)
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    agree(NNGuide().fit(train).score(known), theirs.predict_features(torch_of(known.features)))


def test_fdbd(peer, sets):
    """A head scaled by 1/20 scales margins and gaps alike."""
    train, known, _ = sets
    theirs = peer.detector.fDBD(None, linear(train))
    theirs.fit_features(torch_of(train.features), torch_of(train.labels))
    agree(
        FDBD().fit(train).score(known) * 20,
        theirs.predict_features(torch_of(known.features)),
    )


def test_metrics(peer, sets):
    """OOD is their positive class; labels below zero are OOD."""
    fitted = KNN(20).fit(sets[0])
    known, novel = (fitted.score(s) for s in sets[1:])
    metrics = peer.metrics.OODMetrics()
    labels = np.r_[np.zeros(len(known)), -np.ones(len(novel))]
    metrics.update(torch_of(np.r_[known, novel]), torch_of(labels))
    found = {name: float(value) for name, value in metrics.compute().items()}
    ours = separation_metrics(known, novel, "p", resamples=20)
    assert found["AUROC"] == pytest.approx(ours["p.auroc"].value, abs=1e-6)
    assert found["FPR95TPR"] == pytest.approx(ours["p.fpr95_ood_positive"].value, abs=1e-6)
    # They join the points of the curve by lines and we by steps: 3e-4 apart on these scores.
    for theirs, side in (("AUPR-IN", "id"), ("AUPR-OUT", "ood")):
        assert found[theirs] == pytest.approx(ours[f"p.aupr_{side}_positive"].value, abs=1e-3)
