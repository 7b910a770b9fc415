import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.context import CHUNK, Context
from embedkit.preprocess import InputSpec
from embedkit.runtime.features import FeatureCache
from embedkit.testing import PerfectEmbedder


class Bare:
    """An Embedder that gives neither features nor its input."""

    dim, digest = 2, "sha256:bare"

    def embed(self, images):
        return np.ones((len(images), 2), np.float32)


def test_each_image_is_embedded_once_per_model(make_context, perfect):
    context = make_context()
    for _ in range(3):
        context.embeddings("served", context.test)
        context.embeddings("served", context.train)
    assert perfect.usage.images == 320


def test_the_next_run_does_not_ask_the_model(make_context, perfect, tmp_path):
    for _ in range(2):
        context = make_context(cache=FeatureCache(tmp_path))
        context.embeddings("served", context.test)
    assert perfect.usage.images == 80


def test_another_provider_or_another_transport_is_asked_anew(make_context, source, tmp_path):
    class OnDevice(PerfectEmbedder):
        provider = "CPUExecutionProvider"

    class Elsewhere(OnDevice):
        pass

    def images_asked(model):
        context = make_context(served=model, cache=FeatureCache(tmp_path))
        context.embeddings("served", context.test)
        return model.usage.images

    other = OnDevice(source)
    other.provider = "CUDAExecutionProvider"
    models = OnDevice(source), OnDevice(source), other, Elsewhere(source)
    assert [images_asked(model) for model in models] == [80, 0, 80, 80]


def test_another_code_asks_anew(tmp_path):
    """In a process each, one of which has another file in the package."""
    code = (
        "import sys, pathlib, embedkit\n"
        "embedkit.__path__.insert(0, sys.argv[1])\n"
        "from embedkit.testing import PerfectEmbedder, SyntheticImages\n"
        "from embedkit.evaluate.context import Context\n"
        "from embedkit.runtime.features import FeatureCache\n"
        "s = SyntheticImages()\n"
        "m, t = PerfectEmbedder(s), s.dataset(20)\n"
        "c = Context(m, t, t, cache=FeatureCache(sys.argv[2]))\n"
        "c.embeddings('served', t)\n"
        "print(m.usage.images)"
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "more.py").write_text(f"name = {name!r}\n")

    def images_asked(name):
        words = [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / "cache")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert [images_asked(name) for name in ("one", "one", "two")] == [20, 0, 20]


def test_what_came_from_disk_is_named_once(make_context, tmp_path):
    for expected in ([], ["served embedding of test"]):
        context = make_context(cache=FeatureCache(tmp_path))
        for _ in range(2):
            context.embeddings("served", context.test)
        assert context.cache.from_disk == expected


def test_one_digest_reached_in_two_ways_is_asked_twice(make_context, perfect, source):
    local = type(perfect)(source)
    context = make_context(local=local)
    context.embeddings("served", context.test)
    context.embeddings("local", context.test)
    assert (perfect.usage.images, local.usage.images) == (80, 80)


def test_embeddings_and_features_are_kept_apart(make_context):
    context = make_context()
    embeddings = context.embeddings("served", context.test)
    np.testing.assert_array_equal(context.features("served", context.test), 2 * embeddings)


def test_large_sets_go_in_parts_in_their_order(make_context, source, perfect):
    lines = []
    big = source.dataset(CHUNK + 3, name="big")
    context = make_context(progress=lambda message, done: lines.append((message, done)))
    found = context.embeddings("served", big)
    np.testing.assert_array_equal(found.argmax(axis=1), big.labels)
    assert lines == [("served: big", 0), ("served: big", CHUNK / (CHUNK + 3))]


def test_files_are_sent_as_they_are(make_context, files, source):
    test = source.dataset(12, seed=1, name="files")
    encoded = replace(test, images=files(test.images), digest="")
    context = make_context(test=encoded)
    np.testing.assert_array_equal(
        context.embeddings("served", encoded), context.embeddings("served", test)
    )


def test_twin_and_random_twin_come_from_the_bundle(make_context, bundle):
    context = make_context(bundle=bundle)
    twin, other = context.embedder("twin"), context.embedder("random_encoder")
    assert twin.digest == bundle.model_digest()
    assert other.digest != twin.digest
    assert context.embedder("twin") is twin
    found = [context.embeddings(w, context.test) for w in ("twin", "random_encoder")]
    assert np.abs(found[0] - found[1]).max() > 0.01
    assert replace(context, seed=3).embedder("random_encoder").digest != other.digest


@pytest.mark.parametrize("which", ["twin", "random_encoder", "local"])
def test_without_a_bundle_the_reason_is_given(make_context, which):
    context = make_context(without_bundle="it was lost")
    with pytest.raises(NotFound, match="it was lost"):
        context.embeddings(which, context.test)


def test_an_unknown_model_is_an_error(make_context):
    with pytest.raises(InvalidInput, match="got 'mine'"):
        make_context().embedder("mine")


def test_features_need_a_model_that_gives_them(make_context):
    context = make_context(served=Bare())
    with pytest.raises(NotFound, match="got served without them"):
        context.features("served", context.test)


def test_the_input_comes_from_bundle_model_or_images(make_context, bundle, files, source):
    assert make_context(served=Bare(), bundle=bundle).spec == bundle.manifest.input
    assert make_context().spec == source.spec
    assert make_context(served=Bare()).spec == InputSpec(8, 8, 1)
    encoded = source.dataset(4)
    encoded = replace(encoded, images=files(encoded.images), digest="")
    with pytest.raises(NotFound, match="a model that states none"):
        _ = make_context(served=Bare(), test=encoded).spec


def test_a_context_without_white_box_parts_needs_no_torch():
    code = (
        "import sys\n"
        "from embedkit.testing import ConstantEmbedder, SyntheticImages\n"
        "from embedkit.evaluate.context import Context\n"
        "from embedkit.evaluate.run import evaluate\n"
        "s = SyntheticImages()\n"
        "data = s.dataset(60), s.dataset(20, seed=1), {'n': s.novel(9)}\n"
        "c = Context(ConstantEmbedder(), *data)\n"
        "evaluate(c, ('classify', 'knn', 'linear', 'ood', 'parity'))\n"
        "print(sorted({'torch', 'grpc', 'faiss'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_context_is_a_value(make_context):
    with pytest.raises(AttributeError):
        make_context().seed = 3
    assert isinstance(make_context(), Context)


def test_raw_pixels_are_not_kept_on_disk(make_context, tmp_path):
    context = make_context(cache=FeatureCache(tmp_path / "cache"))
    pixels = context.embeddings("raw_pixels", context.test)
    assert not (tmp_path / "cache").exists()
    assert context.embeddings("raw_pixels", context.test) is pixels
