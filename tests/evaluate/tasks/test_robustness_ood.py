"""Attacks on what a bundle's own detector decides."""

from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.surrogate import twin
from embedkit.evaluate.tasks.robustness import Robustness


def test_the_bundles_ood_decision_is_attacked_from_both_sides(source, bundle):
    options = Options(
        attack_images=12,
        attacks=("apgd_decision",),
        heads=("ood",),
        pgd_steps=4,
        radii_255=(8.0, 32.0),
    )
    train, test = source.dataset(200, seed=5), source.dataset(40, seed=6)
    sets = {"halves": source.novel(40)}
    result = Robustness().run(
        Context(twin(bundle), train, test, sets, bundle=bundle, options=options)
    )
    assert result.status == "ok"
    known = result.metrics["ood_known.apgd_decision.32.accuracy"]
    assert known.value <= result.metrics["ood_known.accuracy"].value
    assert known.n == 12
