"""Who may call what: API keys, the admin token, and each caller's rate."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from embedkit.errors import InvalidInput, PermissionDenied, Unauthenticated
from embedkit.serve.access.keys import MAX_KEY, KeyRing, digest_of
from embedkit.serve.access.limit import Bucket, images_in

__all__ = ["ADMIN_CALLS", "Access", "AuthConfig", "Caller", "Check", "Metadata"]

log = logging.getLogger(__name__)

ADMIN_CALLS = frozenset({"ModelService/LoadModel", "ModelService/UnloadModel"})
"""What needs the admin token."""

Metadata = Iterable[tuple[str, str | bytes]]
"""What a caller sends beside a request: pairs of a lower-case name and a value."""

_SCHEME = "bearer "
_HOW = "send it as 'authorization: Bearer KEY' or 'x-api-key: KEY'"


@dataclass(frozen=True)
class AuthConfig:
    """Which credentials a server asks for; with none it asks for none.

    Attributes:
        keys: API keys, ``NAME:KEY`` or ``KEY`` each.
        keys_file: More of them, one per line, read again when the file changes.
        admin_tokens: Tokens for loading and unloading models, and for everything else.
        admin_token_file: More of them, likewise.
        rate_limit: Images (or calls without images) per second of each key; 0 for no limit.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    keys_file: Path | None = None
    admin_tokens: tuple[str, ...] = field(default=(), repr=False)
    admin_token_file: Path | None = None
    rate_limit: float = 0.0

    def __post_init__(self) -> None:
        """Check that a rate limit has somebody to limit.

        Raises:
            InvalidInput: If the rate is negative, or there are no keys to count it by.
        """
        if not 0 <= self.rate_limit < float("inf"):
            raise InvalidInput(f"expected a rate limit of at least 0, got {self.rate_limit}")
        if self.rate_limit and not self.has_keys:
            raise InvalidInput(
                "expected API keys with a rate limit, which is per key, got none; "
                "give --keys-file or EMBEDKIT_API_KEYS"
            )

    @property
    def has_keys(self) -> bool:
        """Whether callers need an API key."""
        return bool(self.keys) or self.keys_file is not None


@dataclass(frozen=True)
class Caller:
    """Somebody whose credential was good.

    Attributes:
        name: Of the key.
        bucket: What it may still ask, or None without a limit.
    """

    name: str
    bucket: Bucket | None = None

    def enter(self) -> None:
        """Let one of its requests in, before it is parsed.

        Raises:
            RateLimited: If it has asked too much.
        """
        if self.bucket is not None:
            self.bucket.enter()

    def pay(self, request: Message) -> None:
        """Take what a request costs from its bucket."""
        if self.bucket is not None:
            self.bucket.pay(images_in(request))


Check = Callable[[Metadata], Caller]
"""Finds who sends a call by its metadata, or raises."""

_ANYBODY = Caller("")


class Access:
    """Decides who may call what, by the metadata of each call.

    Args:
        config: The credentials.
        clock: Seconds, never going back.

    Raises:
        InvalidInput: If a file of keys cannot be read or holds another form.
    """

    def __init__(
        self, config: AuthConfig | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or AuthConfig()
        self._clock = clock
        self._rate = config.rate_limit
        self._keys = KeyRing(config.keys, config.keys_file, clock=clock)
        self._admins = KeyRing(
            config.admin_tokens, config.admin_token_file, what="admin token", clock=clock
        )
        self._callers: dict[str, Caller] = {}
        self._lock = threading.Lock()

    def check_of(self, rpc: str) -> Check | None:
        """Return what stands before a method, or None where anybody may call it.

        Args:
            rpc: ``Service/Method``.
        """
        if rpc in ADMIN_CALLS:
            return self._admin
        return self._caller if self._keys else None

    def _caller(self, metadata: Metadata) -> Caller:
        """Find a caller by its key.

        Raises:
            Unauthenticated: If there is no key, or a wrong one.
        """
        secret = _credential(metadata)
        if secret is None:
            raise Unauthenticated(f"expected an API key, got none; {_HOW}")
        digest = digest_of(secret)
        key = self._keys.find(digest)
        if key is None:
            admin = self._admins.find(digest) if self._admins else None
            if admin is None:
                raise Unauthenticated("expected a valid API key, got another")
            return Caller(admin.name)
        return self._callers.get(key.name) or self._add(key.name)

    def _admin(self, metadata: Metadata) -> Caller:
        """Find an admin.

        Raises:
            PermissionDenied: If the server has no admin token, or the credential is none.
            Unauthenticated: If callers need a key and this one has none, or a wrong one.
            RateLimited: If it is another caller, who has asked too much.
        """
        secret = _credential(metadata)
        if secret is not None and self._admins:
            found = self._admins.find(digest_of(secret))
            if found is not None:
                return Caller(found.name)
        caller = self._caller(metadata) if self._keys else _ANYBODY
        caller.enter()
        if not self._admins:
            raise PermissionDenied(
                "expected a server with an admin token, got one without; start it with "
                "--admin-token-file FILE or EMBEDKIT_ADMIN_TOKEN"
            )
        kind = f"the API key {caller.name!r}" if caller.name else "none"
        raise PermissionDenied(f"expected the admin token, got {kind}; {_HOW}")

    def _add(self, name: str) -> Caller:
        """The caller of a key's name; one for all keys of that name."""
        with self._lock:
            if name not in self._callers:
                bucket = Bucket(self._rate, self._clock) if self._rate else None
                self._callers[name] = Caller(name, bucket)
            return self._callers[name]


def _credential(metadata: Metadata) -> str | None:
    """The key in a call's metadata; that of ``authorization`` if there are two."""
    other: str | None = None
    for name, value in metadata:
        if name not in ("authorization", "x-api-key") or not isinstance(value, str):
            continue
        if name == "x-api-key":
            other = value if other is None else other
        elif value[: len(_SCHEME)].lower() == _SCHEME:
            return _short(value[len(_SCHEME) :].strip())
    return None if other is None else _short(other.strip())


def _short(secret: str) -> str:
    """A credential that is not hashed in vain."""
    if len(secret) > MAX_KEY:
        raise Unauthenticated(
            f"expected an API key of at most {MAX_KEY} characters, got {len(secret)}"
        )
    return secret
