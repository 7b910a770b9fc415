from dataclasses import replace

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from embedkit.evaluate.tasks.transfer import Transfer


def test_one_half_votes_for_the_other(make_context, source, noisy, embedded):
    other = source.dataset(120, seed=7, name="other")
    context = make_context(served=noisy, ood={"other": other})
    result = Transfer().run(context)
    z, labels = embedded(other)
    scored = result.items["other.labels"]
    assert len(scored) == 60
    assert np.bincount(scored).tolist() == [15] * 4
    (train, y) = embedded(context.train)
    peer = KNeighborsClassifier(
        20, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
    ).fit(train, y)
    np.testing.assert_array_equal(result.items["other.shift"], peer.predict(z))
    np.testing.assert_array_equal(result.items["other.shift_labels"], labels)
    for kind in ("knn", "linear"):
        right = result.items[f"other.{kind}"] == scored
        assert result.metrics[f"other.{kind}.top1"].value == right.mean()


def test_classes_are_matched_by_name(make_context, source):
    data = source.dataset(40, seed=2)
    names = ("level 3", "unknown", "level 0", "elsewhere")
    turned = replace(data, class_names=names, digest="")
    result = Transfer().run(make_context(ood={"turned": turned}))
    wanted = result.items["turned.shift_labels"]
    assert len(wanted) == 20
    assert set(wanted.tolist()) == {3, 0}
    # The embedder knows the true levels: class 0 of this set is level 0, and is called level 3.
    assert result.metrics["turned.shift.top1"].value == 0
    assert result.metrics["turned.knn.top1"].value == 1


def test_other_classes_have_no_shift(make_context, source):
    strangers = replace(source.dataset(40), class_names=tuple("abcd"), digest="")
    result = Transfer().run(make_context(ood={"strangers": strangers}))
    assert set(result.metrics) == {"strangers.knn.top1", "strangers.linear.top1"}


def test_what_cannot_be_scored_is_said(make_context, source):
    assert "give --ood" in Transfer().run(make_context(ood={})).warnings[0]
    unlabelled = Transfer().run(make_context())
    assert unlabelled.status == "skipped"
    assert "expected labels, got none in 'novel'" in unlabelled.warnings[0]
    single = Transfer().run(make_context(ood={"few": source.dataset(5)}))
    assert "two images of each" in single.warnings[0]
