"""Errors by cause: the cause determines whether a message is acknowledged.

`Rejected` is caused by the device: the message is stored with its reason, and acknowledged. `StoreUnavailable` is
caused by the system: nothing is acknowledged, so the sender still has the reading.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

Reason = Literal[
    "bad_topic",  # the topic does not name a device
    "not_json",
    "not_a_reading",  # not an object with named fields, or one with the id field of no kind or of several kinds
    "invalid_field",
    "device_mismatch",  # the payload names another device than the topic
    "timestamp_out_of_range",  # further in the past or future than is accepted
    "too_many_readings",
    "too_large",  # more bytes, values, lists or objects than are decoded
    "conflict",  # a reading with this identity and other values is already stored
    "unstorable",  # valid by the contract, but refused by the database
    "quota_exceeded",  # a valid reading, beyond what is stored of a device in a day
    "forbidden",  # the sender is not allowed to report this device
]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message, or one element of an array, that is not a valid reading; stored unchanged."""

    kind: ClassVar[None] = None

    reason: Reason
    detail: str
    payload: bytes
    topic: str | None = None
    device: str | None = None
    format: str = "json"
    """Name of the format (`bridge.formats`), so that a replay decodes the payload in the same way."""
    sender: str | None = None
    """Who sent it, where the source knows more than the topic says: the id of the API key."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class StoreUnavailable(Exception):
    """A write failed, or its outcome is unknown: retry, and acknowledge nothing."""


class ClocksDiffer(StoreUnavailable):
    """This machine's clock or the database's is wrong, so no reading can be judged."""


class Unreachable(StoreUnavailable):
    """No session can be opened in which to write; trying again costs the database hardly anything."""


class ReadOnlyDatabase(Unreachable):
    """The database answers queries but accepts no writes: a replica, or a failover that is in progress."""


class LeadershipLost(StoreUnavailable):
    """Another bridge of the same name holds the advisory lock: stand by."""


class NotJson(ValueError):
    """An HTTP body that is not JSON."""


class TooManyReadings(ValueError):
    """An HTTP body with more readings than one request may carry; none of them was decoded."""


class Misconfigured(Exception):
    """A setting of the program or of the database makes the guarantee impossible; the text names it and the remedy."""
