"""Keys: read from texts and a file, kept as digests, compared in constant time, rotated."""

import hashlib
import hmac
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from embedkit.errors import InvalidInput
from embedkit.serve.observe.logs import event

__all__ = ["Key", "KeyRing", "digest_of", "read_keys"]

log = logging.getLogger(__name__)

MAX_KEY = 512
"""Characters of the longest key."""
_MAX_KEYS = 10_000
_SHORT = 16
# A file of that many keys, each with a name; reading it must not keep other calls waiting.
_MAX_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What a header carries unchanged, without what separates keys in a text.
_KEY = re.compile(r"[!-+\--~]{1,512}")
_CHECK_EVERY_S = 1.0
_CACHE = 4096


class Key(NamedTuple):
    """One key: whose it is, and the sha256 of its characters.

    Two keys may have one name: they are the same caller, as during a rotation.
    """

    name: str
    digest: bytes


class _Ring(NamedTuple):
    """The keys of one moment, and which digests were found among them lately."""

    keys: tuple[Key, ...]
    found: dict[bytes, Key]


class KeyRing:
    """Keys that may change while the server runs.

    The file is looked at when a key is checked, at most once a second. While it cannot be read
    the keys read before stay good; an empty file leaves none.

    Args:
        texts: ``NAME:KEY`` or ``KEY`` each.
        file: The same, one per line; ``#`` begins a comment line.
        what: Names the keys in errors.
        clock: Seconds, never going back.

    Raises:
        InvalidInput: If the file cannot be read, a key has another form, or a file was given
            and there is no key at all.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        file: Path | None = None,
        *,
        what: str = "key",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._file = file
        self._clock = clock
        self._given = read_keys(texts, what)
        self._reading = threading.Lock()
        self._stamp = _stamp(file)
        self._next_look = clock() + _CHECK_EVERY_S
        self._ring = _Ring(self._read(), {})
        if file is not None and not self._ring.keys:
            raise InvalidInput(f"expected at least one {what} in {file}, got none")

    def __bool__(self) -> bool:
        """Whether it has keys, or a file that may get some."""
        return self._file is not None or bool(self._given)

    def find(self, digest: bytes) -> Key | None:
        """Return the key with this sha256, or None.

        A digest that was found before costs a dict lookup; any other one is compared with
        every key, in a time that does not depend on where they differ.
        """
        if self._file is not None and self._clock() >= self._next_look:
            self._look()
        ring = self._ring
        known = ring.found.get(digest)
        if known is not None:
            return known
        match: Key | None = None
        for key in ring.keys:
            if hmac.compare_digest(key.digest, digest):
                match = key
        if match is not None and len(ring.found) < _CACHE:
            ring.found[digest] = match
        return match

    def _look(self) -> None:
        """Read the file again if it has changed; one thread does, the others go on."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._next_look = self._clock() + _CHECK_EVERY_S
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._ring = _Ring(self._read(), {})
        except InvalidInput as error:
            log.error("the %ss read before stay good: %s", self._what, error)
            return
        finally:
            self._reading.release()
        count = len(self._ring.keys)
        event(log, logging.INFO, f"read {self._what}s again", file=str(self._file), keys=count)

    def _read(self) -> tuple[Key, ...]:
        if self._file is None:
            return self._given
        try:
            size = self._file.stat().st_size
            if size > _MAX_FILE_BYTES:
                raise InvalidInput(
                    f"expected at most {_MAX_FILE_BYTES} bytes in {self._file}, got {size}"
                )
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"expected to read {self._what}s from {self._file}, got: {error}"
            ) from error
        texts = (line.strip() for line in lines)
        return (*self._given, *read_keys((t for t in texts if t and t[0] != "#"), self._what))


def read_keys(texts: Iterable[str], what: str = "key") -> tuple[Key, ...]:
    """Read ``NAME:KEY`` or ``KEY`` each; a key without a name is named by its digest.

    Raises:
        InvalidInput: If one has another form. The message never repeats a key.
    """
    keys: list[Key] = []
    for number, text in enumerate(texts, 1):
        name, colon, secret = text.partition(":")
        if not colon:
            name, secret = "", text
        if (colon and not _NAME.fullmatch(name)) or not _KEY.fullmatch(secret):
            raise InvalidInput(
                f"expected {what} {number} as KEY or NAME:KEY, the key 1 to {MAX_KEY} "
                "printable ASCII characters without space and comma; got another form"
            )
        if len(secret) < _SHORT:
            log.warning(
                "%s %d has only %d characters and can be guessed; "
                "make a longer one, as 'openssl rand -hex 32' does",
                what,
                number,
                len(secret),
            )
        digest = digest_of(secret)
        keys.append(Key(name or f"{what.partition(' ')[0]}-{digest.hex()[:8]}", digest))
    if len(keys) > _MAX_KEYS:
        raise InvalidInput(f"expected at most {_MAX_KEYS} {what}s, got {len(keys)}")
    return tuple(keys)


def digest_of(secret: str) -> bytes:
    """Sha256 of a key's characters."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None if there is none."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
