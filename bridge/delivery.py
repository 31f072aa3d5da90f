"""A delivery is what came in together, and the function that settles it once its fate is known.

`settle` is called exactly once, in the order in which deliveries were offered, with one outcome per item, after
the commit. Called with `StoreUnavailable` it means: not stored as far as we know; do not acknowledge.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from bridge.errors import Rejected, StoreUnavailable
from bridge.reading import FieldWarning, Flagged, Reading

Item = Reading | Flagged | Rejected
"""One reading as it was decoded, or why it is none."""


class Kept(Enum):
    """A reading that is in the history: from now on, or it was there before."""

    STORED = "stored"
    DUPLICATE = "duplicate"


class KeptWithWarnings(NamedTuple):
    """The same for a reading of which its sender should know something."""

    kept: Kept
    warnings: tuple[FieldWarning, ...]


Outcome = Kept | KeptWithWarnings | Rejected
"""What became of one item. `Rejected` is committed too, in `rejected_message`."""

Settlement = Sequence[Outcome] | StoreUnavailable

BYTES_PER_WEIGHT = 1024
MOST_WARNINGS = 1_000
"""In a receipt, which a broker and a device must be able to take; one more says how many were left out."""


class Delivery(NamedTuple):
    """Items that share one acknowledgement.

    `weight` counts against the batch and the capacity: one a reading, or one for each KiB where that is more,
    so that memory stays bounded whatever devices put into their messages.
    """

    items: Sequence[Item]
    settle: Callable[[Settlement], None]
    weight: int


def delivery(items: Sequence[Item], settle: Callable[[Settlement], None], size_bytes: int) -> Delivery:
    """A delivery of a message of `size_bytes`."""
    return Delivery(items, settle, max(len(items), size_bytes // BYTES_PER_WEIGHT, 1))


class Receipt(NamedTuple):
    """What became of a message, told to its sender after the commit: the answer over HTTP and over MQTT."""

    stored: int
    duplicates: int
    rejected: list[dict[str, int | str]]
    warnings: list[dict[str, int | str]]
    """Of readings that are kept: index in the message, field, reason."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Receipt":
        """Count the outcomes; each rejection and warning keeps its index in the message and says its reason."""
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
        """The contract's JSON object; `warnings` is there only when there are any."""
        members = self._asdict()
        if not self.warnings:
            del members["warnings"]
        return members

    def encode(self) -> bytes:
        """The object as JSON."""
        return json.dumps(self.members(), separators=(",", ":")).encode()


def kept_as(outcome: Outcome) -> Kept | None:
    """How a reading was kept, with or without warnings; None when it was rejected."""
    if isinstance(outcome, KeptWithWarnings):
        return outcome.kept
    return None if isinstance(outcome, Rejected) else outcome


class Store(Protocol):
    """Where readings are kept."""

    async def write(self, items: Sequence[Item]) -> list[Outcome]:
        """Keep every item, all of them or none, and say what became of each, in order.

        When it returns, the items are committed. Idempotent: writing the same items again stores nothing twice.
        Raises `StoreUnavailable` when the outcome is not certain.
        """
        ...
