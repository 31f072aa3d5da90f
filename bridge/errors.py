"""Whose fault it is decides everything else.

`Rejected` is the device's fault: kept with its reason, and acknowledged. `StoreUnavailable` is ours: nothing is
acknowledged, so the sender still has the reading.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

Reason = Literal[
    "bad_topic",  # no device can be read from the topic
    "not_json",
    "not_a_reading",  # JSON, but no object, or an object of neither or both kinds
    "invalid_field",
    "device_mismatch",  # the payload's device is not the topic's
    "timestamp_out_of_range",  # further in the past or future than we take
    "too_many_readings",
    "conflict",  # this identity is already in the history with other values
    "unstorable",  # only the database refused it
    "forbidden",  # its sender may not report this device
]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message, or one element of an array, that cannot be a reading; stored as it came."""

    kind: ClassVar[None] = None

    reason: Reason
    detail: str
    payload: bytes
    topic: str | None = None
    device: str | None = None
    format: str = "json"
    """The format that decodes the payload in the same way again (`bridge.formats`)."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class StoreUnavailable(Exception):
    """The outcome of a write is unknown or it did not happen: try again, acknowledge nothing."""


class LeadershipLost(StoreUnavailable):
    """Another bridge of the same name holds the lock: stand by."""


class NotJson(ValueError):
    """An HTTP body that is not JSON at all."""


class TooManyReadings(ValueError):
    """An HTTP body with more readings than one request may carry; none of them was decoded."""


class Misconfigured(Exception):
    """A setting, or the database's, breaks the promise; the text says which and what to do."""
