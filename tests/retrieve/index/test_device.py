"""The choice between CPU and GPU; what a GPU finds is compared where there is one."""

from collections.abc import Iterator

import faiss
import numpy as np
import pytest

from embedkit.errors import InvalidInput, MissingDependency
from embedkit.retrieve.index import device
from embedkit.retrieve.index.engines.ivf import InvertedFile
from embedkit.retrieve.index.scoring import nearest
from embedkit.retrieve.stores.local import LocalStore

BUILT = hasattr(faiss, "StandardGpuResources")
GPUS = faiss.get_num_gpus() if BUILT else 0
REASON = "FAISS sees no GPU" if BUILT else "this FAISS is built without GPUs"


@pytest.fixture(autouse=True)
def _on_the_cpu_again() -> Iterator[None]:
    yield
    device.choose("auto")


@pytest.fixture
def _needs_gpu() -> None:
    if not GPUS:
        pytest.skip(REASON)


@pytest.mark.skipif(GPUS > 0, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tmp_path):
    error, words = (
        (InvalidInput, "FAISS sees none")
        if BUILT
        else (MissingDependency, r"pip install 'embedkit\[gpu\]'")
    )
    with pytest.raises(error, match=words) as raised:
        LocalStore(tmp_path, index_device="gpu")
    assert raised.value.exit_code == 2
    LocalStore(tmp_path).close()  # nothing was taken


@pytest.mark.skipif(GPUS > 0, reason="there is a GPU")
def test_auto_takes_the_cpu_where_there_is_no_gpu(tmp_path, caplog):
    with caplog.at_level("INFO"):
        store = LocalStore(tmp_path)
    store.close()
    assert store.index_device == "cpu"
    assert device.chosen() is None
    assert "indexes are searched on the cpu" in caplog.text


def test_other_devices_are_refused():
    with pytest.raises(InvalidInput, match="auto, cpu or gpu, got 'tpu'"):
        device.choose("tpu")


@pytest.mark.gpu
@pytest.mark.usefixtures("_needs_gpu")
@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_exact_search_on_a_gpu_finds_what_the_cpu_finds(rng, metric):
    vectors = rng.standard_normal((20_000, 32)).astype(np.float32)
    queries = rng.standard_normal((64, 32)).astype(np.float32)
    device.choose("cpu")
    scores, rows = nearest(queries, vectors, 10, metric)
    device.choose("gpu")
    gpu = device.chosen()
    assert gpu is not None
    assert gpu.nearest(queries, vectors, 10, faiss.METRIC_L2) is not None
    on_gpu, found = nearest(queries, vectors, 10, metric)
    np.testing.assert_allclose(on_gpu, scores, rtol=1e-4, atol=1e-4)
    assert (found == rows).mean() > 0.99


@pytest.mark.gpu
@pytest.mark.usefixtures("_needs_gpu")
@pytest.mark.parametrize("words", ["IVF32,Flat", "IVF32,SQ8", "IVF32,SQfp16", "IVF32,PQ8"])
def test_inverted_files_on_a_gpu_find_what_the_cpu_finds(rng, words):
    vectors = rng.standard_normal((20_000, 32)).astype(np.float32)
    queries = rng.standard_normal((64, 32)).astype(np.float32)
    index = faiss.index_factory(32, words, faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    engine = InvertedFile(index, holds_vectors=False)
    device.choose("cpu")
    expected = engine.search(queries, 10, 8, None)
    device.choose("gpu")
    gpu = device.chosen()
    assert gpu is not None
    assert gpu.search(index, queries, 10, 8) is not None
    found = engine.search(queries, 10, 8, None)
    np.testing.assert_allclose(found.measure, expected.measure, rtol=1e-2, atol=1e-2)
    assert np.mean(found.position == expected.position) > 0.95
    even = faiss.IDSelectorBatch(np.arange(0, 20_000, 2))
    assert (engine.search(queries, 10, 8, even).position % 2 == 0).all()
