"""Which provider runs a model, and that a missing one is never passed over in silence."""

import logging

import numpy as np
import onnxruntime
import pytest

from embedkit.errors import InvalidInput
from embedkit.runtime.providers import CPU, ON_CUDA, check_started, choose_providers
from embedkit.runtime.session import Session

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def has_cuda(monkeypatch):
    """The names that a build with CUDA and TensorRT lists."""
    names = ["TensorrtExecutionProvider", CUDA, CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [CPU]),
        (["cpu"], [CPU]),
        (["CUDA"], [CUDA]),
        (["tensorrt"], ["TensorrtExecutionProvider", CUDA]),
        ([CUDA, "cpu"], [CUDA, CPU]),
    ],
)
def test_short_names_stand_for_onnxruntimes(has_cuda, names, expected):
    assert choose_providers(names) == expected


@pytest.mark.parametrize("names", [["NoSuchProvider"], ["NoSuchProvider", "cpu"], []])
def test_a_missing_provider_is_an_error_that_shows_the_way_out(names):
    with pytest.raises(InvalidInput, match="--allow-cpu-fallback"):
        choose_providers(names)


def test_the_cpu_takes_the_place_of_a_missing_provider_when_allowed(caplog):
    caplog.set_level(logging.WARNING)
    assert choose_providers(["NoSuchProvider"], allow_cpu_fallback=True) == [CPU]
    assert "NoSuchProvider is not installed" in caplog.text


def test_a_provider_that_does_not_start_is_an_error_unless_allowed(caplog):
    caplog.set_level(logging.WARNING)
    with pytest.raises(InvalidInput, match=f"expected the provider {CUDA} to start"):
        check_started([CUDA], [CPU])
    assert check_started([CUDA], [CPU], allow_cpu_fallback=True) == CPU
    assert "did not start" in caplog.text
    assert check_started([CUDA], [CUDA, CPU]) == CUDA


def test_a_session_says_what_it_runs_on(graph, spec):
    session = Session(
        graph(), "", spec, providers=["NoSuchProvider"], threads=3, allow_cpu_fallback=True
    )
    assert (session.provider, session.providers, session.threads) == (CPU, (CPU,), 3)


@pytest.mark.parametrize("n", [1, 5])
def test_bound_arrays_give_what_plain_ones_do(graph, spec, rng, n):
    session = Session(graph(), "", spec, threads=1)
    images = rng.integers(0, 256, (n, 4, 3, 1), dtype=np.uint8)
    outputs = ["features", "embedding"]
    plain = session.run(images, outputs)
    bound = session._run_bound(images, outputs)
    for name, rows in zip(outputs, bound, strict=True):
        np.testing.assert_array_equal(rows, plain[name])


@pytest.mark.gpu
def test_a_cuda_session_gives_what_the_cpu_does(graph, spec, rng):
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has no CUDA here")
    session = Session(graph(), "", spec, providers=["cuda"])
    assert session.provider in ON_CUDA
    images = rng.integers(0, 256, (64, 4, 3, 1), dtype=np.uint8)
    on_cpu = Session(graph(), "", spec).run(images, ["embedding"])["embedding"]
    on_gpu = session.run(images, ["embedding"])["embedding"]
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-5)
