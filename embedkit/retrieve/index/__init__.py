"""Indexes over vectors: exact, approximate, and how the two make one."""

from embedkit.errors import MissingDependency

try:
    import faiss
except ImportError as error:
    # The GPU build names the CUDA library that it looked for and did not find.
    raise MissingDependency(
        f"expected FAISS, got {error}; install embedkit[serve], or embedkit[gpu] with the CUDA "
        "libraries that it names"
    ) from error

__all__ = ["faiss"]
