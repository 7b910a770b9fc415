"""The exception tree: every error embedkit raises on purpose.

    EmbedkitError                      INTERNAL             exit 1
    |- InvalidInput                    INVALID_ARGUMENT     exit 2   (also a ValueError)
    |  |- BadImage                     one image that cannot be decoded or is too large
    |  |- MessageTooLarge
    |- NotFound                        NOT_FOUND            exit 2
    |- AlreadyExists                   ALREADY_EXISTS       exit 2
    |- ModelMismatch                   FAILED_PRECONDITION  exit 2
    |- CollectionFull                  RESOURCE_EXHAUSTED   exit 1   (a limit of its own)
    |- QueueFull                       RESOURCE_EXHAUSTED   exit 1   (retry helps)
    |- RateLimited                     RESOURCE_EXHAUSTED   exit 1   (retry helps)
    |- Unavailable                     UNAVAILABLE          exit 1   (retry helps)
    |- DeadlineExceeded                DEADLINE_EXCEEDED    exit 1
    |- Cancelled                       CANCELLED            exit 1
    |- Unauthenticated                 UNAUTHENTICATED      exit 2
    |- PermissionDenied                PERMISSION_DENIED    exit 2
    |- BundleDamaged                   DATA_LOSS            exit 1
    |- StoreDamaged                    DATA_LOSS            exit 1
    |- ModelChanged                    ABORTED              exit 1   (another model answers)
    |- SequenceConflict                ABORTED              exit 1   (written in between)
    |- BudgetExhausted                 RESOURCE_EXHAUSTED   exit 1   (an attack's query limit)
    |- TrainingDiverged                INTERNAL             exit 1
    |- ParityFailed                    INTERNAL             exit 1   (export differs from torch)
    |- MissingDependency               UNIMPLEMENTED        exit 2   (names the extra)

Each class carries the gRPC status it becomes on the wire (by name, so that this file needs no
gRPC), a machine-readable reason, and the exit code of the command line. The translation happens
in two places only: ``wire/status.py`` and ``cli``.
"""

from typing import ClassVar

__all__ = [
    "AlreadyExists",
    "BadImage",
    "BudgetExhausted",
    "BundleDamaged",
    "Cancelled",
    "CollectionFull",
    "DeadlineExceeded",
    "EmbedkitError",
    "InvalidInput",
    "MessageTooLarge",
    "MissingDependency",
    "ModelChanged",
    "ModelMismatch",
    "NotFound",
    "ParityFailed",
    "PermissionDenied",
    "QueueFull",
    "RateLimited",
    "SequenceConflict",
    "StoreDamaged",
    "TrainingDiverged",
    "Unauthenticated",
    "Unavailable",
]


class EmbedkitError(Exception):
    """Base of every error that embedkit raises on purpose.

    Attributes:
        status: Name of the gRPC status code.
        reason: Upper-case identifier sent as ``google.rpc.ErrorInfo.reason``.
        exit_code: Exit code of the command line.
        retry_s: Seconds after which a retry may help, or None where it does not help.
        facts: What a program needs to know of it, by name; ``ErrorInfo.metadata`` on the wire.
    """

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1
    retry_s: float | None = None

    @property
    def facts(self) -> dict[str, str]:
        """Nothing, for most errors."""
        return {}


class InvalidInput(EmbedkitError, ValueError):
    """The caller's input is wrong: shape, dtype, range, name or syntax."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"
    exit_code = 2


class BadImage(InvalidInput):
    """One image cannot be decoded, or declares more pixels than the limit."""

    reason = "BAD_IMAGE"


class MessageTooLarge(InvalidInput):
    """A request exceeds the message, item or payload limit."""

    reason = "MESSAGE_TOO_LARGE"


class NotFound(EmbedkitError):
    """A model, version, collection, file or id that does not exist."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"
    exit_code = 2


class AlreadyExists(EmbedkitError):
    """A name that is taken."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"
    exit_code = 2


class ModelMismatch(EmbedkitError):
    """Vectors of one model meet a collection filled by another."""

    status = "FAILED_PRECONDITION"
    reason = "MODEL_MISMATCH"
    exit_code = 2


class CollectionFull(EmbedkitError):
    """A write would leave more in a collection than it was made for."""

    status = "RESOURCE_EXHAUSTED"
    reason = "COLLECTION_FULL"


class QueueFull(EmbedkitError):
    """The server's queue is full by images or by bytes."""

    status = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"
    retry_s = 0.05


class RateLimited(EmbedkitError):
    """The caller's key has asked for more than its rate allows.

    Args:
        message: As of any error.
        retry_s: Seconds until the key may ask again.
    """

    status = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"
    retry_s = 1.0

    def __init__(self, message: str = "", retry_s: float = retry_s) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Unavailable(EmbedkitError):
    """The server is draining, restarting, unreachable, or its disk is full."""

    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"
    retry_s = 0.5


class DeadlineExceeded(EmbedkitError):
    """The deadline passed before the work was done."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(EmbedkitError):
    """The caller went away; the work was not executed."""

    status = "CANCELLED"
    reason = "CANCELLED"


class Unauthenticated(EmbedkitError):
    """The credential is missing or wrong."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"
    exit_code = 2


class PermissionDenied(EmbedkitError):
    """The call needs the admin token."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"
    exit_code = 2


class BundleDamaged(EmbedkitError):
    """A file of a bundle does not match its digest, or its golden embeddings differ."""

    status = "DATA_LOSS"
    reason = "BUNDLE_DAMAGED"


class StoreDamaged(EmbedkitError):
    """The file that holds a collection cannot be read, or holds what was never written."""

    status = "DATA_LOSS"
    reason = "STORE_DAMAGED"


class ModelChanged(EmbedkitError):
    """A reply came from another model than the replies before it."""

    status = "ABORTED"
    reason = "MODEL_CHANGED"


class SequenceConflict(EmbedkitError):
    """An id was written after the state that the caller has seen.

    Args:
        message: As of any error.
        sequence: Number of the collection's last write: read again, then send this one.
    """

    status = "ABORTED"
    reason = "SEQUENCE_CONFLICT"

    def __init__(self, message: str = "", sequence: int = 0) -> None:
        super().__init__(message)
        self.sequence = sequence

    @property
    def facts(self) -> dict[str, str]:
        """The sequence."""
        return {"sequence": str(self.sequence)}


class BudgetExhausted(EmbedkitError):
    """An attack has used all of its queries."""

    status = "RESOURCE_EXHAUSTED"
    reason = "BUDGET_EXHAUSTED"


class TrainingDiverged(EmbedkitError):
    """The loss is not finite; the message has the step and where the batch was written."""

    reason = "TRAINING_DIVERGED"


class ParityFailed(EmbedkitError):
    """An exported graph does not compute what the torch encoder computes."""

    reason = "PARITY_FAILED"


class MissingDependency(EmbedkitError):
    """An optional package is absent; the message names the extra that brings it."""

    status = "UNIMPLEMENTED"
    reason = "MISSING_DEPENDENCY"
    exit_code = 2
