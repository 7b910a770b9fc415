import numpy as np
import pytest
from scipy.special import logsumexp

from embedkit.bundle import Head
from embedkit.detect.detector import Observation
from embedkit.detect.detectors.vim import ViM
from embedkit.detect.subspace import default_dim


def observe(head, features):
    return Observation(features, features=features, logits=head.logits(features), head=head)


@pytest.fixture
def head():
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(4, 9)), rng.normal(size=4)
    return Head(weight.astype(np.float32), bias.astype(np.float32), tuple("abcd"))


def test_score_follows_the_paper(head):
    """Wang et al. 2022, equations 1 to 5; the paper's code with a complete eigenbasis."""
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 9)).astype(np.float32) for n in (300, 20))
    weight, bias = head.weight.astype(float), head.bias.astype(float)
    origin = -np.linalg.lstsq(weight, bias, rcond=None)[0]
    values, basis = np.linalg.eig((train - origin).T @ (train - origin) / len(train))
    null = basis[:, np.argsort(-values)[5:]]
    logits = [features @ weight.T + bias for features in (train, test)]
    residuals = [np.linalg.norm((f - origin) @ null, axis=1) for f in (train, test)]
    alpha = logits[0].max(axis=1).mean() / residuals[0].mean()
    expected = alpha * residuals[1] - logsumexp(logits[1], axis=1)
    fitted = ViM(principal=5).fit(observe(head, train))
    assert fitted.alpha == pytest.approx(alpha, rel=1e-6)
    np.testing.assert_allclose(fitted.score(observe(head, test)), expected, rtol=1e-4)


def test_the_virtual_logit_is_as_large_as_the_largest_real_one(head):
    known = observe(head, np.random.default_rng(1).normal(size=(300, 9)).astype(np.float32))
    fitted = ViM().fit(known)
    virtual = fitted.score(known) + logsumexp(known.logits.astype(float), axis=1)
    assert virtual.mean() == pytest.approx(known.logits.max(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize(("dim", "principal"), [(9, 4), (512, 256), (768, 512), (2048, 1000)])
def test_principal_dimensions_of_the_papers_code(dim, principal):
    assert default_dim(dim) == principal
