"""A served model is an Embedder like any other, and counts what it is asked."""

from collections.abc import Iterator

import numpy as np
import pytest

import embedkit
from embedkit.client.served import ServedModel
from embedkit.client.sync import Client
from embedkit.errors import BadImage, ModelChanged, NotFound, QueueFull
from embedkit.types import Embedder, FeatureEmbedder, Metered, Scorer, Searcher, Usage


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with embedkit.connect(address) as opened:
        yield opened


@pytest.fixture
def served(client: Client) -> ServedModel:
    return client.model("m")


def images(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)


def test_it_keeps_the_protocols(served: ServedModel, client: Client) -> None:
    assert isinstance(served, Embedder)
    assert isinstance(served, FeatureEmbedder)
    assert isinstance(served, Scorer)
    assert isinstance(served, Metered)
    assert isinstance(client, Searcher)
    assert isinstance(client, Metered)


def test_it_knows_the_model(served: ServedModel, client: Client) -> None:
    assert (served.dim, served.digest, served.input.height) == (4, "sha256:one", 2)
    assert served.info == client.models()[0]
    with pytest.raises(NotFound, match="'x'"):
        client.model("x")


def test_it_embeds_and_scores(served: ServedModel, rng, embeddings_of) -> None:
    batch = images(rng, 70)
    np.testing.assert_allclose(served.embed(batch), embeddings_of(batch), atol=1e-6)
    features = batch.reshape(70, 4).astype(np.float32) + 1
    assert np.array_equal(served.features(batch), features)
    scores = served.score(batch)
    assert scores.labels is not None
    assert np.array_equal(scores.labels, features.argmax(axis=1))
    assert scores.novelty is not None
    assert np.array_equal(scores.novelty, features.sum(axis=1))
    assert scores.class_names == ("ant", "bee", "cat")
    with pytest.raises(BadImage, match="image 1"):
        served.embed([b"ok", b"bad"])


def test_scores_are_those_that_the_bundle_has(client: Client, rng, script) -> None:
    script.outputs = ("EMBEDDING", "CLASS")
    scores = client.model().score(images(rng, 2))
    assert scores.labels is not None
    assert scores.novelty is None
    script.outputs = ("EMBEDDING", "FEATURES")
    with pytest.raises(NotFound, match="head or a detector"):
        client.model().score(images(rng, 2))


def test_images_are_counted_once_however_often_they_are_sent(
    served: ServedModel, client: Client, rng, script
) -> None:
    script.failures = [QueueFull("full")] * 2
    batch = images(rng, 64 * 2 + 5)
    served.embed(batch)
    usage = served.usage
    assert (usage.images, usage.calls, usage.retries) == (133, 3, 2)
    assert 133 * 4 < usage.bytes_sent < 133 * 4 + 300
    assert client.model("m").usage == Usage()
    assert client.usage.images == 133
    assert client.usage.calls > usage.calls


@pytest.mark.parametrize("name", ["m", ""])
def test_another_model_under_its_name_is_refused(
    client: Client, name: str, running, rng, script
) -> None:
    served = client.model(name)
    served.embed(images(rng, 1))
    running.stop()
    script.digest = "sha256:two"
    running.start()
    for ask in (served.embed, served.features, served.score):
        with pytest.raises(ModelChanged, match=r"sha256:one.*sha256:two"):
            ask(images(rng, 1))
    again = client.model(name)
    assert again.digest == "sha256:two"
    assert again.embed(images(rng, 1)).shape == (1, 4)
