"""A delivery: items that were received together, and the function that settles them once their outcome is known.

`settle` is called exactly once, in the order in which deliveries were offered, with one outcome per item, after
the commit. A call with `StoreUnavailable` means that the commit is not confirmed: do not acknowledge.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from bridge.errors import Rejected, StoreUnavailable
from bridge.reading import FieldWarning, Flagged, Reading

Item = Reading | Flagged | Rejected
"""One decoded reading, or its rejection."""


class Kept(Enum):
    """How a reading came to be in the history: stored by this write, or already there."""

    STORED = "stored"
    DUPLICATE = "duplicate"


class KeptWithWarnings(NamedTuple):
    """The same for a reading with warnings to its sender."""

    kept: Kept
    warnings: tuple[FieldWarning, ...]


Outcome = Kept | KeptWithWarnings | Rejected
"""The outcome of one item. `Rejected` is committed too, in `rejected_message`."""

Settlement = Sequence[Outcome] | StoreUnavailable

BYTES_PER_WEIGHT = 1024
MOST_WARNINGS = 1_000
"""Maximum in a receipt, whose size brokers and devices limit; one more warning has the number of omitted ones."""


class Delivery(NamedTuple):
    """Items that share one acknowledgement.

    `weight` counts towards the batch size and the buffer capacity: one per reading, or one per KiB where that is more,
    so that memory stays bounded for any content of the messages.
    """

    items: Sequence[Item]
    settle: Callable[[Settlement], None]
    weight: int


def delivery(items: Sequence[Item], settle: Callable[[Settlement], None], size_bytes: int) -> Delivery:
    """Make a delivery of a message of `size_bytes`."""
    return Delivery(items, settle, max(len(items), size_bytes // BYTES_PER_WEIGHT, 1))


class Receipt(NamedTuple):
    """The outcome of a message, sent to its sender after the commit: the HTTP response and the MQTT receipt."""

    stored: int
    duplicates: int
    rejected: list[dict[str, int | str]]
    warnings: list[dict[str, int | str]]
    """Warnings about stored readings: index in the message, field, reason."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Receipt":
        """Count the outcomes; each rejection and warning has its index in the message and its reason."""
        if outcomes.count(Kept.STORED) == len(outcomes):
            return cls(len(outcomes), 0, [], [])
        rejected: list[dict[str, int | str]] = [
            {"index": index, "reason": str(outcome)}
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Rejected)
        ]
        warnings: list[dict[str, int | str]] = [
            {"index": index, "field": warning.field, "reason": f"{warning.code}: {warning.detail}"}
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, KeptWithWarnings)
            for warning in outcome.warnings
        ]
        if (more := len(warnings) - MOST_WARNINGS) > 0:
            warnings[MOST_WARNINGS:] = [
                {"index": len(outcomes) - 1, "field": "", "reason": f"omitted: {more} warnings"}
            ]
        stored = sum(kept_as(outcome) is Kept.STORED for outcome in outcomes)
        return cls(stored, len(outcomes) - stored - len(rejected), rejected, warnings)

    def members(self) -> dict[str, Any]:
        """The contract's JSON object; it has `warnings` only when there are any."""
        members = self._asdict()
        if not self.warnings:
            del members["warnings"]
        return members

    def brief(self) -> "Receipt":
        """The same without the details of rejections and warnings, where they make it too large to send."""
        shortened = ([{**entry, "reason": str(entry["reason"]).partition(":")[0]} for entry in e] for e in self[2:])
        return Receipt(self.stored, self.duplicates, *shortened)

    def encode(self) -> bytes:
        """The object as JSON text."""
        return self._encode() if self.rejected or self.warnings else _encoded(self.stored, self.duplicates)

    def _encode(self) -> bytes:
        return json.dumps(self.members(), separators=(",", ":")).encode()


@lru_cache(maxsize=1024)  # most receipts are of one reading
def _encoded(stored: int, duplicates: int) -> bytes:
    return Receipt(stored, duplicates, [], [])._encode()


def kept_as(outcome: Outcome) -> Kept | None:
    """Whether a reading was stored or is a duplicate, regardless of warnings; None when it was rejected."""
    if isinstance(outcome, KeptWithWarnings):
        return outcome.kept
    return None if isinstance(outcome, Rejected) else outcome


class Store(Protocol):
    """The database to which readings are written."""

    async def write(self, items: Sequence[Item]) -> list[Outcome]:
        """Write all items in one transaction, and return the outcome of each, in order.

        When it returns, the items are committed. Idempotent: writing the same items again stores nothing twice.
        Raises `StoreUnavailable` when the outcome is not certain.
        """
        ...
