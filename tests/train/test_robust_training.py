"""Robust training end to end: trained, exported, served, attacked."""

from argparse import Namespace

import pytest

from tools.bench_robust import measure, variants


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("robust", "plain"),
    [("trades", "cross_entropy"), ("adversarial_contrastive", "simclr")],
)
def test_the_served_model_withstands_more(robust, plain):
    """One seed and a third of the epochs of the table in docs/train.md, where gains are 0.2."""
    options = Namespace(
        data="digits", limit=0, epochs=10, width=16, stem="small", attacked=100, radius=[24.0]
    )
    chosen = {variant.name: variant for variant in variants(16.0)}
    found, expected = (measure(chosen[name], 0, options) for name in (robust, plain))
    assert found["pgd.24"] > expected["pgd.24"] + 0.05
    assert found["clean"] > expected["clean"] - 0.05
