"""One request to change a collection, and what it is refused for."""

from collections.abc import Sequence
from concurrent.futures import Future

from embedkit.errors import (
    CollectionFull,
    InvalidInput,
    ModelMismatch,
    SequenceConflict,
)
from embedkit.retrieve.filter.sql import Condition
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.truth.transaction import Position, Transaction, advanced
from embedkit.types import Collection, Embeddings

__all__ = ["Write", "check_model"]

# "sha256:" and 64 digits are 71.
_LONGEST_DIGEST = 256


class Write:
    """One request to change a collection, and its outcome.

    Args:
        ids: Checked ids.
        vectors: (n, d) checked float32, or None to delete the ids.
        payloads: JSON text or None per id.
        model_digest: Model that made the vectors, or empty.
        where: Filter to delete by in place of ids.
        if_sequence: Refuse it if an id was written after this number; None to write anyway.
        patience: Refuse it once this is over.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors: Embeddings | None = None,
        payloads: Sequence[str | None] = (),
        model_digest: str = "",
        where: Condition | None = None,
        if_sequence: int | None = None,
        patience: Patience = FOREVER,
    ) -> None:
        self.ids = ids
        self.vectors = vectors
        self.payloads = payloads
        self.model_digest = model_digest
        self.where = where
        self.if_sequence = if_sequence
        self.patience = patience
        self.outcome: Future[tuple[int, Collection]] = Future()

    def apply(self, transaction: Transaction, position: Position) -> tuple[Position, list[int]]:
        """Run the statements; returns the position after it and the slots that it emptied.

        Raises:
            ModelMismatch, SequenceConflict, CollectionFull, Cancelled, DeadlineExceeded: Before
                anything is changed.
        """
        self.patience.check()
        check_model(position.collection, self.model_digest)
        self._check_sequence(transaction, position.collection)
        self._check_room(transaction, position.collection)
        if self.where is None:
            gone = transaction.remove(self.ids)
        else:
            gone = transaction.remove_matching(self.where, self.patience)
        if self.vectors is None:
            return advanced(position, slots=0, count=-len(gone), model_digest=""), gone
        added = len(self.ids)
        if added:
            transaction.add(position, self.ids, self.vectors, self.payloads)
        after = advanced(
            position, slots=added, count=added - len(gone), model_digest=self.model_digest
        )
        return after, gone

    def _check_sequence(self, transaction: Transaction, collection: Collection) -> None:
        if self.if_sequence is None:
            return
        newer = transaction.written_after(self.if_sequence, self.ids)
        if newer is not None:
            raise SequenceConflict(
                f"expected no id written after {self.if_sequence}, got {newer[0]!r} written at "
                f"{newer[1]}; the collection is at {collection.sequence}: read again",
                collection.sequence,
            )

    def _check_room(self, transaction: Transaction, collection: Collection) -> None:
        most = collection.limits.vectors
        if self.vectors is None or not most or collection.count + len(self.ids) <= most:
            return
        after = collection.count + len(self.ids) - transaction.existing(self.ids)
        if after > most:
            raise CollectionFull(
                f"expected at most {most} vectors in {collection.name!r}, got {after} with "
                "this write; delete some, or make a collection with a larger limit"
            )


def check_model(collection: Collection, model_digest: str) -> None:
    """Refuse vectors of another model than the collection's, where both are known.

    Raises:
        InvalidInput: If a digest is too long to be kept with the collection.
        ModelMismatch: If they differ.
    """
    if len(model_digest) > _LONGEST_DIGEST:
        raise InvalidInput(
            f"expected a model digest of at most {_LONGEST_DIGEST} characters, got "
            f"{len(model_digest)}"
        )
    if model_digest and collection.model_digest and model_digest != collection.model_digest:
        raise ModelMismatch(
            f"expected vectors of the model {collection.model_digest} that filled "
            f"{collection.name!r}, got {model_digest}; make a collection for the other model"
        )
