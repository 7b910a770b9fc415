"""What indexes are searched with: the CPU, or a GPU where this build of FAISS sees one.

A GPU belongs to the process and so does the choice; the index on the CPU stays the whole one.
It answers what a GPU cannot, or fails at: filters, very long lists, too little memory.
"""

import logging
import threading
import weakref
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, MissingDependency
from embedkit.types import Embeddings

__all__ = ["IndexDevice", "all_compared", "choose", "chosen"]

_LOG = logging.getLogger(__name__)

IndexDevice = Literal["auto", "cpu", "gpu"]
_Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

# FAISS multiplies matrices from so many values of queries on, by itself from 128,000; BLAS has
# been up to five times as fast from some thousand on. Few queries lose by it.
_BLAS_VALUES = 2048
_BLAS_QUERIES = 4
# FAISS's own limit for neighbours and clusters per query on a GPU.
_MOST = 2048
# Rows are copied to the GPU for every search, which only many comparisons of each are worth.
_LEAST_ROWS = 16_384
_LEAST_QUERIES = 32


class Gpu:
    """The first GPU; one search at a time, because FAISS's resources are not thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources = faiss.StandardGpuResources()
        # By the identity of the index on the CPU; None for one that cannot be copied.
        self._copies: dict[int, faiss.Index | None] = {}
        # Copies are dropped under the lock, and not where the last reference happens to go.
        self._gone: list[int] = []

    def nearest(
        self, queries: Embeddings, vectors: Embeddings, k: int, kind: int
    ) -> _Found | None:
        """As ``faiss.knn``, or None where the CPU is to answer."""
        if len(vectors) < _LEAST_ROWS or len(queries) < _LEAST_QUERIES or k > _MOST:
            return None
        with self._lock:
            try:
                measure, position = faiss.knn_gpu(
                    self._resources, queries, vectors, k, metric=kind, device=0
                )
            except RuntimeError as error:
                _LOG.warning("the CPU compares %d vectors: %s", len(vectors), error)
                return None
        return measure, position

    def search(
        self, index: faiss.IndexIVF, queries: Embeddings, k: int, nprobe: int
    ) -> _Found | None:
        """As the index without a selector, or None where the CPU is to answer."""
        if k > _MOST or nprobe > _MOST:
            return None
        with self._lock:
            try:
                copy = self._copy(index)
                if copy is None:
                    return None
                params = faiss.SearchParametersIVF(nprobe=nprobe)  # type: ignore[call-arg]
                measure, position = copy.search(queries, k, params=params)
            except RuntimeError as error:
                _LOG.warning("the CPU searches an index: %s", error)
                return None
        return measure, position

    def _copy(self, index: faiss.IndexIVF) -> faiss.Index | None:
        while self._gone:
            self._copies.pop(self._gone.pop(), None)
        key = id(index)
        if key not in self._copies:
            self._copies[key] = None
            weakref.finalize(index, self._gone.append, key)
            self._copies[key] = faiss.index_cpu_to_gpu(self._resources, 0, index)
        return self._copies[key]


class _Choice:
    """What the process has chosen."""

    gpu: Gpu | None = None


def choose(device: str) -> Literal["cpu", "gpu"]:
    """Set what every index of this process is searched with from now on.

    Args:
        device: ``auto`` for a GPU if there is one that FAISS can use.

    Returns:
        What it is.

    Raises:
        MissingDependency: If FAISS was built without GPUs and one is asked for.
        InvalidInput: If FAISS sees no GPU and one is asked for; if the choice is none.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise InvalidInput(f"expected index_device auto, cpu or gpu, got {device!r}")
    faiss.cvar.distance_compute_blas_threshold = _BLAS_VALUES
    is_built = hasattr(faiss, "StandardGpuResources")
    is_there = is_built and faiss.get_num_gpus() > 0
    if device == "gpu" and not is_built:
        raise MissingDependency(
            "expected a FAISS with GPUs for index_device gpu, got one without; "
            "pip install 'embedkit[gpu]' in place of faiss-cpu, or take index_device auto"
        )
    if device == "gpu" and not is_there:
        raise InvalidInput(
            "expected a GPU for index_device gpu, FAISS sees none; look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or take index_device auto"
        )
    if device == "cpu" or not is_there:
        _Choice.gpu = None
        return "cpu"
    _Choice.gpu = _Choice.gpu or Gpu()
    return "gpu"


def chosen() -> Gpu | None:
    """The GPU that searches, or None for the CPU."""
    return _Choice.gpu


def all_compared(
    queries: Embeddings,
    vectors: Embeddings,
    k: int,
    kind: int,
    selector: faiss.IDSelector | None = None,
) -> _Found:
    """As ``faiss.knn`` on the CPU, without BLAS where that would lose digits, or time.

    BLAS takes squared distances from products, whose digits cancel far from the origin.

    Args:
        queries: (n, d) float32.
        vectors: (m, d) float32.
        k: At most m, or as many as are selected.
        kind: FAISS's number of the metric.
        selector: Of positions; None for all.
    """
    is_l2 = kind == faiss.METRIC_L2
    is_large = queries.size >= _BLAS_VALUES
    if selector is None and is_large and (is_l2 or len(queries) < _BLAS_QUERIES):
        selector = faiss.IDSelectorAll()  # with a selector FAISS does not use BLAS
    if selector is None:
        measure, position = faiss.knn(queries, vectors, k, kind)
        return measure, position
    measure = np.empty((len(queries), k), np.float32)
    position = np.empty((len(queries), k), np.int64)
    pointers = [faiss.swig_ptr(array) for array in (queries, vectors)]
    results = [faiss.swig_ptr(array) for array in (measure, position)]
    sizes = (queries.shape[1], len(queries), len(vectors), k)
    if is_l2:
        faiss.knn_L2sqr(*pointers, *sizes, *results, None, selector)  # type: ignore[call-arg]
    else:
        faiss.knn_inner_product(*pointers, *sizes, *results, selector)  # type: ignore[call-arg]
    return measure, position
