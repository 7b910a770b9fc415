"""The networks that are served when no bundle is given."""

import numpy as np
import pytest

from embedkit.bench.models import NETWORKS, write_network
from embedkit.errors import InvalidInput
from embedkit.runtime.local import load


def test_a_network_is_a_bundle_that_loads_and_repeats_itself(light, tmp_path, rng):
    model = load(light, threads=1)
    images = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    vectors = model.embed(images)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again = load(write_network(tmp_path, "light"), threads=1)
    assert again.digest == model.digest


def test_an_unknown_network_is_refused(tmp_path):
    assert set(NETWORKS) == {"light", "heavy"}
    with pytest.raises(InvalidInput, match=r"light.*heavy.*'huge'"):
        write_network(tmp_path, "huge")
