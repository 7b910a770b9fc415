from dataclasses import replace

import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.evaluate.measurement.checks import (
    class_problem,
    head_leakage,
    leakage,
    shared_images,
)
from embedkit.evaluate.tasks.calibration import Calibration
from embedkit.evaluate.tasks.classify import Classify


def test_two_labelled_sets_are_no_problem(make_context):
    assert class_problem(make_context()) is None


@pytest.mark.parametrize("role", ["train", "test"])
def test_labels_are_needed(make_context, role):
    bare = Dataset("bare", np.zeros((4, 8, 8, 1), np.uint8))
    problem = str(class_problem(make_context(**{role: bare})))
    assert "got none in 'bare'" in problem
    assert "training" in problem if role == "train" else "test" in problem


@pytest.mark.parametrize("role", ["train", "test"])
def test_one_class_is_no_question(make_context, source, role):
    one = source.dataset(80, seed=3).subset(np.arange(0, 80, 4))
    assert "got one: with one class every prediction is right" in str(
        class_problem(make_context(**{role: one}))
    )


def test_a_head_that_was_fitted_on_the_test_images_is_noticed(make_context, source, bundle):
    fitted_on = source.dataset(200, seed=5)
    for result in (Classify(), Calibration()):
        fair = result.run(make_context(bundle=bundle))
        assert not any("head was fitted" in text for text in fair.warnings)
        (said,) = head_leakage(make_context(bundle=bundle, test=fitted_on))
        assert said in result.run(make_context(bundle=bundle, test=fitted_on)).warnings
    assert head_leakage(make_context()) == ()


def test_leakage_counts_images(make_context, source):
    context = make_context()
    assert leakage(context) == ()
    mixed = np.concatenate([context.test.images[:70], context.train.images[:10]])
    leaky = replace(
        context, test=Dataset("t", mixed, context.test.labels, context.test.class_names)
    )
    (warning,) = leakage(leaky)
    assert warning.startswith("10 of 80 test images are also training images")


def test_shared_images_are_equal_bytes_in_equal_shape(source):
    a = source.dataset(10)
    flat = Dataset("flat", a.images.reshape(10, 4, 16, 1))
    assert shared_images(a, a) == 10
    assert shared_images(a, flat) == 0
    assert shared_images(a, flat, a.subset([1, 2])) == 2


def test_shared_files(source):
    a = Dataset("a", (b"x", b"y", b"x"))
    assert shared_images(a, Dataset("b", (b"x", b"z"))) == 2
