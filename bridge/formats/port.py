"""What a format is: a pure function that turns bytes into readings and rejects, and how a message names it."""

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from bridge.delivery import Item

MAX_READINGS_PER_MESSAGE = 1_000
MAX_READINGS_PER_BODY = 10_000


class AcceptedTimes(NamedTuple):
    """The device times that are accepted at one moment."""

    now: datetime
    earliest: datetime
    latest: datetime


class AcceptedWindow(NamedTuple):
    """How far a device's clock may be from ours. Outside, one reading could freeze a live row for ever."""

    past: timedelta
    future: timedelta

    def at(self, now: datetime) -> AcceptedTimes:
        """What it means now."""
        return AcceptedTimes(now, now - self.past, now + self.future)


class Decode(Protocol):
    """The function of a format. Pure: no clock, no socket, no await."""

    def __call__(self, payload: bytes, topic: str | None, times: AcceptedTimes, most: int, /) -> list[Item]:
        """The items of one message, or of one HTTP body (`topic` is None), in order; never empty.

        What cannot be a reading is a `Rejected` with the format's name, so that a replay decodes it the same way; a
        message of more than `most` readings is one `Rejected` with the reason `too_many_readings`. `element.Origin`
        makes both, and turns a mapping of the contract's names into a reading.
        """
        ...


class Format(NamedTuple):
    """One format. It is chosen by the content type (of an HTTP body or an MQTT 5 message), else by the topic."""

    name: str
    """Stored with a rejected message."""
    decode: Decode
    content_types: tuple[str, ...]
    """Media types in lower case, without parameters; the first one stands in the documentation."""
    description: str
    """What a payload is, for the documentation."""
    topics: tuple[str, ...] = ()
    """MQTT topic filters of messages in this format, which the bridge subscribes to beside the contract's own."""
