"""A trained model at each precision, from the export to what a client gets."""

import json
from dataclasses import replace

import numpy as np
import pytest

import embedkit
from embedkit.bundle import Bundle, derive_bundle, write_bundle
from embedkit.data.source import load_dataset
from embedkit.errors import BundleDamaged, ModelMismatch, NotFound
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.run import evaluate
from embedkit.export.precisions import Precisions
from embedkit.export.run import export_run
from embedkit.runtime.local import load
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import EngineConfig
from embedkit.serve.server import Server, running_server

ALL = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def bundle(repository, tmp_path_factory):
    """The run behind the committed bundle, exported in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    run = folder / "run"
    run.mkdir()
    committed = Bundle(repository / "models" / "digits" / "1")
    for name in ("encoder.safetensors", "recipe.toml"):
        (run / name).write_bytes(committed.read(name))
    (run / "encoder.json").write_text(json.dumps(committed.manifest.encoder))
    (run / "run.json").write_text(json.dumps({"objective": committed.manifest.objective}))
    return export_run(
        run,
        name="digits",
        models=folder / "models",
        head=load_dataset("digits").subset(range(400)),
        precisions=Precisions(ALL),
    )


def config_of(precision):
    return ServerConfig(engine=EngineConfig(threads=1, precision=precision), recall_s=0)


@pytest.mark.parametrize("precision", ALL)
def test_the_wanted_precision_is_what_clients_get(bundle, tmp_path, precision):
    images = load_dataset("digits:test").images[:40]
    models = bundle.path.parent.parent
    with (
        running_server(
            models=models, data_dir=tmp_path, config=config_of(precision)
        ) as address,
        embedkit.connect(address) as client,
    ):
        (info,) = client.models()
        assert (info.precision, info.digest) == (precision, bundle.model_digest(precision))
        served = client.embed(images, model="digits")
    local = load(bundle.path, precision=precision, threads=1)
    assert served == pytest.approx(local.embed(images), abs=1e-6)
    apart = np.abs(served - load(bundle.path, threads=1).embed(images)).max()
    assert {"fp32": 0, "fp16": 1e-6, "int8": 2e-3}[precision] <= apart <= 5e-2


def test_the_canary_knows_its_precision(bundle, tmp_path):
    """The golden embedding is int8's own: fp32's is further away than what is accepted."""
    models = bundle.path.parent.parent
    for precision in ALL:
        base = config_of(precision)
        server = Server(
            replace(base, models=models, data_dir=tmp_path / precision, bind="127.0.0.1:0")
        )
        server.start()
        try:
            (model,) = server.engine.models
            model.crew.check_alive(20)
            model.crew._expected = np.roll(model.crew._expected, 1, axis=1)
            with pytest.raises(BundleDamaged, match="expected a golden embedding within"):
                model.crew.check_alive(20)
            model.crew.restart()
        finally:
            server.stop(5)


def test_a_collection_of_one_precision_refuses_another(bundle, tmp_path):
    images = load_dataset("digits:test").images[:4]
    models = bundle.path.parent.parent
    with (
        running_server(models=models, data_dir=tmp_path, config=config_of("fp32")) as address,
        embedkit.connect(address) as client,
    ):
        client.create_collection("c", model="digits")
        client.upsert("c", list("abcd"), images=images)
    with (
        running_server(models=models, data_dir=tmp_path, config=config_of("int8")) as address,
        embedkit.connect(address) as client,
        pytest.raises(ModelMismatch),
    ):
        client.search("c", images=images, k=1)


def test_a_server_says_which_precisions_there_are(repository, tmp_path):
    models = repository / "models"
    with (
        pytest.raises(
            NotFound, match=r"digits:1 in one of \['fp32'\], got 'int8'.*export again"
        ),
        running_server(models=models, data_dir=tmp_path, config=config_of("int8")),
    ):
        pass


def test_a_graph_that_is_another_one_is_found_by_its_golden_embeddings(bundle, tmp_path):
    """Digests agree here, as in a bundle written on purpose; what it computes does not."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(bundle.graph("int8"))
    weights = [t for t in graph.graph.initializer if numpy_helper.to_array(t).ndim == 4]
    turned = np.ascontiguousarray(numpy_helper.to_array(weights[-1])[::-1])
    weights[-1].CopyFrom(numpy_helper.from_array(turned, weights[-1].name))
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["model.int8.onnx"] = graph.SerializeToString()
    other = write_bundle(tmp_path / "m", bundle.manifest, files)
    with pytest.raises(BundleDamaged, match=r"golden embeddings of .* in int8 within 0\.02"):
        load(other.path, precision="int8")
    assert load(other.path, precision="fp16").precision == "fp16"


def test_a_further_detector_keeps_every_precision(bundle):
    new = derive_bundle(bundle, {"detectors/x.npz": b""})
    assert new.precisions == ALL
    assert [new.model_digest(p) for p in ALL] == [bundle.model_digest(p) for p in ALL]


def test_parity_covers_every_precision_through_the_server(bundle, tmp_path):
    train, test = (load_dataset(name).subset(range(120)) for name in ("digits", "digits:test"))
    models = bundle.path.parent / "1"
    with (
        running_server(
            models=models.parent.parent,
            data_dir=tmp_path,
            config=replace(config_of("int8"), load=("digits:1",)),
        ) as address,
        embedkit.connect(address) as client,
    ):
        served = client.model("digits")
        local = load(bundle.path, precision=served.info.precision, threads=1)
        options = Options(parity_images=60)
        context = Context(served, train, test, {}, bundle=bundle, local=local, options=options)
        (result,) = evaluate(context, ("parity",)).results
    metrics = result.metrics
    assert metrics["local_vs_served.max_abs_error"].value < 1e-6
    for pair in ("torch_vs_served", "served_vs_fp32", "served_vs_fp16"):
        assert 2e-3 < metrics[f"{pair}.max_abs_error"].value < 5e-2
        assert metrics[f"{pair}.knn_flips"].value <= 2
        assert metrics[f"{pair}.neighbour_overlap"].value > 0.9
