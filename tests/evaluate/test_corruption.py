import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.corruption import SETS, constants_for, corrupt, expand


def test_sets_and_names_are_put_together_in_order():
    cases, constants = expand(("validation", "fog", "stripe"), (5, 1, 1))
    assert list(cases) == [*SETS["validation"], "fog", "stripe"]
    assert cases["fog"] == (1, 5)
    assert cases["stripe"] == (1,)
    assert constants is None


def test_mnist_c_brings_its_own_severities():
    cases, constants = expand(("mnist_c",), (1, 2))
    assert cases["shot_noise"] == (5,)
    assert cases["canny_edges"] == (1,)
    assert constants == "imagenet"
    with pytest.raises(InvalidInput, match="mnist_c alone"):
        expand(("mnist_c", "fog"), (1,))


@pytest.mark.parametrize(
    ("wanted", "severities", "message"),
    [
        (("fgo",), (1,), "did you mean 'fog'"),
        ((), (1,), "at least one corruption"),
        (("fog",), (7,), "severities from 1 to 5"),
    ],
)
def test_mistakes_are_answered_in_words(wanted, severities, message):
    with pytest.raises(InvalidInput, match=message):
        expand(wanted, severities)


def test_the_size_decides_the_constants(rng):
    assert constants_for(32, 32) == constants_for(64, 28) == "cifar"
    assert constants_for(65, 28) == "imagenet"
    image = np.full((1, 16, 16, 3), 128, np.uint8)
    small = corrupt(image, "gaussian_noise", 5, ids=("a",))
    large = corrupt(image, "gaussian_noise", 5, ids=("a",), constants="imagenet")
    assert large.std() > 2 * small.std()


def test_one_id_per_image_is_needed():
    with pytest.raises(InvalidInput, match="3 ids"):
        corrupt(np.zeros((2, 8, 8, 1), np.uint8), "fog", 1, ids=("a", "b", "c"))
    with pytest.raises(InvalidInput, match="float64"):
        corrupt(np.zeros((1, 8, 8, 1)), "fog", 1, ids=("a",))
