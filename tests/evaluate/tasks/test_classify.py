from dataclasses import replace

import numpy as np
import pytest

from embedkit.errors import NotFound
from embedkit.evaluate.tasks.classify import Classify
from embedkit.testing import PerfectEmbedder
from embedkit.types import ImageScores


class Named(PerfectEmbedder):
    """Answers with its own class names, in its own order."""

    def __init__(self, source, names, order):
        super().__init__(source)
        self.names, self.order = names, np.array(order)

    def score(self, images):
        found = super().score(images)
        return ImageScores(
            np.argsort(self.order)[found.labels], found.probabilities, None, tuple(self.names)
        )


class Silent(PerfectEmbedder):
    """Gives the scores that it was told to."""

    def __init__(self, source, scores):
        super().__init__(source)
        self.scores = scores

    def score(self, images):
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


class Bare:
    """An Embedder alone."""

    dim, digest = 1, "sha256:bare"

    def embed(self, images):
        return np.ones((len(images), 1), np.float32)


def test_classes_come_from_the_server(make_context, perfect):
    result = Classify().run(make_context())
    assert result.metrics["top1"].value == 1
    assert perfect.usage.images == 80
    np.testing.assert_array_equal(result.items["predictions"], result.items["labels"])
    assert (result.items["confidence"] == 1).all()


def test_classes_in_another_order_are_matched_by_name(make_context, source):
    order = [2, 0, 3, 1]
    names = [f"level {c}" for c in order]
    result = Classify().run(make_context(served=Named(source, names, order)))
    assert result.metrics["top1"].value == 1
    assert result.warnings == ()


def test_more_classes_than_the_test_set_has(make_context, source):
    names = ["other", *(f"level {c}" for c in range(4))]
    served = Named(source, names, [4, 0, 1, 2, 3])
    assert Classify().run(make_context(served=served)).metrics["top1"].value == 1


def test_a_class_that_the_head_lacks_counts_as_wrong(make_context, source):
    names = ["level 0", "level 1", "level 2", "something else"]
    result = Classify().run(make_context(served=Named(source, names, [0, 1, 2, 3])))
    assert result.metrics["top1"].value == 0.75
    assert set(result.items["predictions"][result.items["labels"] == 3]) == {-1}
    assert result.warnings == (
        "the head has no class for ['level 3']: those images count as wrong",
    )


def test_no_name_in_common_is_matched_by_position_and_said(make_context, source):
    result = Classify().run(make_context(served=Named(source, "abcd", [0, 1, 2, 3])))
    assert result.metrics["top1"].value == 1
    assert "matched by position" in result.warnings[0]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (ImageScores(None, None, np.zeros(80)), "expected a model with a head"),
        (NotFound("neither head nor detector"), "neither head nor detector"),
    ],
)
def test_without_a_head_it_is_skipped(make_context, source, scores, message):
    result = Classify().run(make_context(served=Silent(source, scores)))
    assert result.status == "skipped"
    assert message in result.warnings[0]


def test_an_embedder_alone_is_skipped(make_context):
    result = Classify().run(make_context(served=Bare()))
    assert result.status == "skipped"
    assert "got an embedder alone" in result.warnings[0]


def test_without_labels_it_is_skipped(make_context, source):
    test = replace(source.dataset(8), labels=None, class_names=(), digest="")
    assert Classify().run(make_context(test=test)).status == "skipped"
