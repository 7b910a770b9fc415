import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from embedkit.detect.detector import Observation, detectors, load_detector
from embedkit.errors import BundleDamaged, InvalidInput


def test_known_names():
    assert {"knn", "mahalanobis"} <= set(detectors.names())


def test_summaries_are_sentences():
    assert all(detectors.summary(name).endswith(".") for name in detectors.names())


@pytest.mark.parametrize("shape", [(0, 3), (3,)])
def test_an_observation_has_images(shape):
    with pytest.raises(InvalidInput, match=r"expected embeddings \(n, d\)"):
        Observation(np.zeros(shape, np.float32))


@pytest.mark.parametrize("field", ["features", "logits", "labels"])
def test_all_fields_have_one_row_per_image(field: str):
    rows: Any = np.zeros(3)
    with pytest.raises(InvalidInput, match=f"expected {field} for 2 embeddings, got 3"):
        Observation(np.zeros((2, 3), np.float32), **{field: rows})


def test_loading_an_unknown_method_suggests_the_near_one():
    with pytest.raises(InvalidInput, match="did you mean 'mahalanobis'"):
        load_detector("mahalanobiss", {})


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("knn", {}),
        ("knn", {"bank": np.zeros((3, 2), np.float32), "k": np.asarray(4)}),
        ("knn", {"bank": np.zeros((3, 2), np.float32), "k": np.asarray([4, 4])}),
        ("mahalanobis", {"means": np.zeros((1, 3)), "whitening": np.eye(2)}),
        (
            "mahalanobis",
            {
                "means": np.zeros((1, 3)),
                "whitening": np.eye(2),
                "on_features": np.asarray(False),
            },
        ),
    ],
)
def test_damaged_state(name, state):
    with pytest.raises(BundleDamaged, match=f"state of the detector '{name}'"):
        load_detector(name, state)


FIT = """
import sys, numpy as np
from embedkit.bundle import Head, pack_arrays
from embedkit.detect.detector import Observation, detectors
rng = np.random.default_rng(0)
z = rng.normal(size=(60, 4)).astype(np.float32)
head = Head(rng.normal(size=(3, 4)).astype(np.float32), np.zeros(3, np.float32), tuple("abc"))
views = np.repeat(z[:, None], 2, axis=1)
x = Observation(z, features=z, logits=head.logits(z), views=views, head=head)
for name in detectors.names():
    with open(f"{sys.argv[1]}/{name}.npz", "wb") as file:
        file.write(pack_arrays(detectors.get(name)().fit(x).state()))
np.savez(f"{sys.argv[1]}/x", z=z, logits=x.logits, views=views)
"""

SCORE = """
import sys, numpy as np
from embedkit.bundle import unpack_arrays
from embedkit.detect.detector import Observation, detectors, load_detector
x = np.load(f"{sys.argv[1]}/x.npz")
x = Observation(x["z"], features=x["z"], logits=x["logits"], views=x["views"])
for name in detectors.names():
    with open(f"{sys.argv[1]}/{name}.npz", "rb") as file:
        load_detector(name, unpack_arrays(file.read())).score(x)
print(sorted({"torch", "sklearn", "scipy", "faiss", "grpc"} & set(sys.modules)))
"""


def test_scoring_imports_numpy_alone(tmp_path):
    """As in a server: the state comes from a file, which another process wrote."""
    done = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        for code in (FIT, SCORE)
    ]
    assert done[1].stdout.strip() == "[]"
