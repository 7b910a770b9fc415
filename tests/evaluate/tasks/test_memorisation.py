import numpy as np
import pytest

from embedkit.evaluate.context import Options
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.tasks.memorisation import Memorisation

OPTIONS = Options(view_images=40)


def test_the_distance_is_the_mean_over_pairs_of_views(make_context, noisy):
    context = make_context(served=noisy, options=OPTIONS)
    result = Memorisation(views=3).run(context)
    rows = np.sort(np.random.default_rng(0).permutation(80)[:40])
    part = context.test.subset(rows)
    z = [
        noisy.embed(augmented(part.images, ids=part.ids, seed=v)).astype(float)
        for v in range(3)
    ]
    pairs = [np.linalg.norm(z[a] - z[b], axis=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(result.items["test"], np.mean(pairs, axis=0), atol=1e-6)
    gap = result.items["test"].mean() - result.items["train"].mean()
    assert result.metrics["gap"].value == pytest.approx(gap)
    wins = result.items["test"][:, None] > result.items["train"]
    ties = result.items["test"][:, None] == result.items["train"]
    assert result.metrics["auroc"].value == pytest.approx((wins + ties / 2).mean())


def test_an_encoder_without_a_reference_has_no_sslmem(make_context):
    result = Memorisation().run(make_context(options=OPTIONS))
    assert result.warnings[0].startswith("no sslmem")
    assert set(result.metrics) == {"gap", "auroc"}


def test_with_a_bundle_the_untrained_encoder_is_the_reference(make_context, bundle):
    result = Memorisation(views=2).run(make_context(bundle=bundle, options=OPTIONS))
    seen = result.items["train_untrained"] - result.items["train"]
    unseen = result.items["test_untrained"] - result.items["test"]
    largest = np.abs(np.concatenate([seen, unseen])).max()
    expected = (seen.mean() - unseen.mean()) / largest
    assert result.metrics["sslmem"].value == pytest.approx(expected)
    assert -1 <= result.metrics["sslmem_train"].value <= 1
