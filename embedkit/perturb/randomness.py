"""Random numbers keyed by what they are for, so that they do not depend on batch or order."""

import hashlib
from typing import Annotated

import numpy as np
import numpy.typing as npt

__all__ = ["Keys", "keys_of", "uniforms"]

Keys = Annotated[npt.NDArray[np.uint64], "n"]
"""One random 64-bit key per image."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAM = np.uint64(0xD1342543DE82EF95)


def keys_of(ids: tuple[str, ...], seed: int) -> Keys:
    """Return one 64-bit key per id, (n,) uint64, that depends on the id and the seed alone."""
    digests = (hashlib.blake2b(f"{seed}\0{i}".encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def uniforms(keys: Keys, step: int, count: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers in [0, 1), (n, count), that depend on key and step alone.

    This is the counter form of splitmix64 (Steele 2014): one mixing per number, and no
    generator to carry along, so the images of a batch can come and go.

    Example:
        >>> keys = keys_of(("a", "b"), seed=0)
        >>> bool((uniforms(keys, 3, 2)[1] == uniforms(keys[1:], 3, 2)[0]).all())
        True
    """
    streams = _mixed(keys + np.full(1, step, np.uint64) * _STREAM)
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = _mixed(streams[:, None] + counters) >> np.uint64(11)
    return bits.astype(np.float64) / 2.0**53


def _mixed(state: Keys) -> Keys:
    """The output function of splitmix64; arithmetic is modulo 2**64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
