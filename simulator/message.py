"""The messages of a lane, and the expected result of each item."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

from bridge.errors import Reason

EXPECTATIONS: tuple[str, ...] = ("stored", *get_args(Reason), "contested")
"""The expected result of an item: `stored` in the history, or rejected with this reason.

Of `contested` readings of the same device and time, one set of values is stored, whichever arrives first; the others
are rejected as conflicts with it.
"""
READINGS = frozenset({"stored", "contested"})
"""The expected results of valid readings."""
STORED, CONTESTED = 0, len(EXPECTATIONS) - 1


def expectation(reason: Reason) -> int:
    """The expectation that a message is rejected for this reason."""
    return EXPECTATIONS.index(reason)


class Item(NamedTuple):
    """One reading or malformed item, and its expected result (index into `EXPECTATIONS`)."""

    payload: bytes
    expect: int


class Message(NamedTuple):
    """One publish of a device: a single item, or with `is_array` its backlog as one JSON array."""

    device: int
    items: Sequence[Item]
    is_array: bool = False

    @property
    def payload(self) -> bytes:
        if self.is_array:
            return b"[" + b",".join(item.payload for item in self.items) + b"]"
        return self.items[0].payload


def single(device: int, payload: bytes, expect: int = STORED) -> Message:
    """A message of one item."""
    return Message(device, (Item(payload, expect),))
