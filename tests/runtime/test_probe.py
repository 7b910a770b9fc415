"""Linear probes: against the optimum's own equations, and where data is thin."""

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.runtime.probe import _fit_each, fit_probe


def blobs(rng, n: int = 300, classes: int = 3, gap: float = 4.0):
    labels = np.arange(n) % classes
    centres = gap * rng.standard_normal((classes, 6))
    features = centres[labels] + rng.standard_normal((n, 6))
    return features.astype(np.float32), labels.astype(np.int64)


def test_separable_classes_are_separated_on_features_as_they_are(rng) -> None:
    features, labels = blobs(rng)
    scaled = features * np.array([1e3, 1e-3, 1, 1, 1, 1], np.float32) + 50
    probe = fit_probe(scaled, labels, class_names=("a", "b", "c"))
    assert (probe.head.logits(scaled).argmax(axis=1) == labels).mean() > 0.97
    assert probe.held_out_accuracy is not None
    assert probe.held_out_accuracy > 0.9
    assert probe.head.class_names == ("a", "b", "c")
    assert probe.head.weight.dtype == probe.head.bias.dtype == np.float32


def test_it_is_the_optimum_of_the_penalised_likelihood(rng) -> None:
    """Gradient of C * sum(cross-entropy) + |W|^2 / 2 on standardised features is zero."""
    features, labels = blobs(rng, gap=0.5)
    c = 0.1
    head = fit_probe(features, labels, cs=(c,)).head
    scale, offset = features.std(axis=0), features.mean(axis=0)
    x = (features - offset) / scale
    weight = head.weight * scale
    logits = x @ weight.T + head.bias + head.weight @ offset
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = p - np.eye(3)[labels]
    gradient = c * residual.T @ x + weight
    assert np.abs(gradient).max() < 0.02 * np.abs(weight).max()
    assert np.abs(residual.sum(axis=0)).max() < 0.1


def test_two_classes_give_two_rows(rng) -> None:
    features, labels = blobs(rng, classes=2)
    head = fit_probe(features, labels).head
    assert head.weight.shape == (2, 6)
    assert (head.logits(features).argmax(axis=1) == labels).mean() > 0.97


def test_a_class_without_images_is_never_predicted(rng) -> None:
    features, labels = blobs(rng, gap=0.1)
    head = fit_probe(features, 2 * labels, class_names=tuple("abcdefg")).head
    assert set(head.logits(50 * features).argmax(axis=1)) <= {0, 2, 4}


def test_the_strength_is_chosen_by_the_held_out_images(rng) -> None:
    # 40 images of noise in 200 dimensions: weak strengths generalise no worse than strong.
    features = rng.standard_normal((60, 200)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    probe = fit_probe(features, labels, cs=(1e-4, 1e-2, 1.0, 100.0))
    # One strength alone has nothing held out, so each is tried beside itself.
    each = [fit_probe(features, labels, cs=(c, c)) for c in (1e-4, 100.0)]
    accuracies = [alone.held_out_accuracy for alone in each]
    assert probe.held_out_accuracy >= max(accuracies)


def test_with_one_strength_nothing_is_held_out_to_choose_it(rng) -> None:
    features, labels = blobs(rng, gap=0.5)
    alone, beside_itself = (fit_probe(features, labels, cs=cs) for cs in ((1.0,), (1.0, 1.0)))
    assert (alone.c, alone.held_out_accuracy) == (1.0, None)
    np.testing.assert_array_equal(alone.head.weight, beside_itself.head.weight)


def test_the_same_seed_gives_the_same_head(rng) -> None:
    features, labels = blobs(rng, gap=0.5)
    first, again = (fit_probe(features, labels, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.head.weight, again.head.weight)
    assert first.c == again.c


def test_constant_dimensions_get_no_weight(rng) -> None:
    features, labels = blobs(rng)
    features[:, 2] = 7.25
    head = fit_probe(features, labels).head
    np.testing.assert_array_equal(head.weight[:, 2], 0)
    assert np.isfinite(head.bias).all()


def test_one_image_per_class_holds_nothing_out(rng) -> None:
    probe = fit_probe(np.eye(3, 6, dtype=np.float32), np.arange(3))
    assert probe.held_out_accuracy is None
    assert (probe.head.logits(np.eye(3, 6)).argmax(axis=1) == np.arange(3)).all()


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0, 0], None, "two classes"),
        ([0, 1], None, r"labels \(n,\)"),
        ([0, 1, 5], ("a", "b"), "labels from 0 to 1, got 0 to 5"),
        ([-1, 0, 1], None, "got -1"),
    ],
)
def test_misfitting_labels_are_refused(labels, names, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit_probe(np.eye(3, dtype=np.float32), np.array(labels), class_names=names)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InvalidInput, match="finite"):
        fit_probe(np.array([[1.0], [np.nan]], np.float32), np.array([0, 1]))


def test_strengths_that_start_from_each_other_end_where_lone_ones_do(rng) -> None:
    """Each of a path is the optimum of its own penalty, to the solver's tolerance."""
    features, labels = blobs(rng, gap=0.5)
    x = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float64)
    cs = (0.01, 0.1, 1.0)
    for c, (weight, bias) in zip(cs, _fit_each(x, labels, cs, 3), strict=True):
        ((alone, alone_bias),) = _fit_each(x, labels, (c,), 3)
        assert np.abs(weight - alone).max() < 0.02 * np.abs(alone).max()
        assert (
            (x @ weight.T + bias).argmax(1) == (x @ alone.T + alone_bias).argmax(1)
        ).mean() > 0.99
