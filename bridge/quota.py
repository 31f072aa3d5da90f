"""The quota of a device."""

from typing import NamedTuple


class Quota(NamedTuple):
    """What is stored of one device in a day."""

    readings: int
    extra_bytes: int
    """Of the unknown fields of its readings, as JSON."""
    rejects: int
    reject_bytes: int
    """Of the payloads of its rejects."""
