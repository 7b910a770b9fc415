"""Indexes over vectors: exact, approximate, and how the two make one."""

from embedkit.errors import MissingDependency

try:
    import faiss
except (ImportError, RuntimeError) as error:
    # The GPU build names the CUDA library that it did not find, in a RuntimeError.
    raise MissingDependency(
        f"expected FAISS, got {error}; install embedkit[serve], or embedkit[gpu] with the CUDA "
        "libraries that it names"
    ) from error

__all__ = ["faiss"]
