"""SLA against equations 2 to 4 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.label_augmentation import LabelAugmentation

OBJECTIVE = LabelAugmentation(distillation=0.7, labels=1.3)
CLASSES = 3


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_equations_2_to_4(rng):
    features, labels = rng.normal(size=(4, 5, 6)), np.array([0, 2, 1, 1, 0])
    batch = _batch(features, labels)
    weights = {k: v.double().numpy() for k, v in batch.module.state_dict().items()}
    joint = distillation = single = 0.0
    for image, label in enumerate(labels):
        aggregated = np.zeros(CLASSES)
        for turn in range(4):
            scores = weights["joint.weight"] @ features[turn, image] + weights["joint.bias"]
            joint -= np.log(softmax(scores)[label * 4 + turn]) / 20
            for c in range(CLASSES):
                aggregated[c] += scores[c * 4 + turn] / 4
        p = softmax(aggregated)
        q = softmax(weights["single.weight"] @ features[0, image] + weights["single.bias"])
        distillation += np.sum(p * np.log(p / q)) / 5
        single -= np.log(q[label]) / 5
    parts = OBJECTIVE(batch).parts
    assert parts["joint"].item() == pytest.approx(joint, rel=1e-4)
    assert parts["distillation"].item() == pytest.approx(0.7 * distillation, rel=1e-3)
    assert parts["labels"].item() == pytest.approx(1.3 * single, rel=1e-4)


def test_the_joint_classifier_is_not_taught_by_the_single_one(rng):
    batch = _batch(rng.normal(size=(4, 5, 6)), np.array([0, 2, 1, 1, 0]))
    distilled = LabelAugmentation(distillation=1e6, labels=0.0)
    plain = LabelAugmentation(distillation=0.0, labels=1.0)
    gradients = []
    for objective in (distilled, plain):
        batch.module.zero_grad()
        objective(batch).total.backward()
        gradients.append(batch.module.joint.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_an_image_is_turned_by_quarters(rng):
    view = torch.tensor(rng.random(size=(1, 2, 1, 3, 3)))
    turned = OBJECTIVE.transform(view, torch.Generator()).views.numpy()
    for turns in range(4):
        for image in range(2):
            expected = np.rot90(view[0, image, 0].numpy(), turns)
            np.testing.assert_array_equal(turned[turns, image, 0], expected)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InvalidInput, match=r"square.*4 x 3.*input\.height"):
        OBJECTIVE.transform(torch.zeros(1, 2, 1, 4, 3), torch.Generator())


def test_the_exported_head_is_that_of_the_upright_image():
    module = OBJECTIVE.build(Sizes(dim=6, feature_dim=6, classes=CLASSES))
    assert OBJECTIVE.classifier(module) is module.single


@pytest.mark.parametrize("arguments", [{"labels": -1.0}, {"distillation": 0.0, "labels": 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="weight"):
        LabelAugmentation(**arguments)


def _batch(features, labels):
    torch.manual_seed(0)
    x = torch.tensor(features, dtype=torch.float32)
    module = OBJECTIVE.build(Sizes(dim=6, feature_dim=6, classes=CLASSES))
    return Batch(x, x, module=module, labels=torch.tensor(labels))
