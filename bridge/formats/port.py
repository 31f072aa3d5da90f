"""The interface of a format: a pure function from bytes to readings and rejects, and how a message selects it."""

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from bridge.delivery import Item

MAX_READINGS_PER_MESSAGE = 1_000
MAX_READINGS_PER_BODY = 10_000


class AcceptedTimes(NamedTuple):
    """The range of accepted device times at one moment."""

    now: datetime
    earliest: datetime
    latest: datetime


class AcceptedWindow(NamedTuple):
    """How far a device's time may differ from the current one. A reading in the far future would block its live row."""

    past: timedelta
    future: timedelta

    def at(self, now: datetime) -> AcceptedTimes:
        """The accepted times at `now`."""
        return AcceptedTimes(now, now - self.past, now + self.future)


class Decode(Protocol):
    """The function of a format. Pure: no clock, no socket, no await."""

    def __call__(self, payload: bytes, topic: str | None, times: AcceptedTimes, most: int, /) -> list[Item]:
        """The items of one message, or of one HTTP body (`topic` is None), in order; never empty.

        An invalid element is a `Rejected` with the format's name, so that a replay decodes it the same way; a message
        of more than `most` readings is one `Rejected` with the reason `too_many_readings`. `element.Origin` makes both;
        `element.decode_element` decodes a mapping of the contract's names.
        """
        ...


class Format(NamedTuple):
    """One format. It is selected by the content type (of an HTTP body or an MQTT 5 message), else by the topic."""

    name: str
    """Stored with a rejected message."""
    decode: Decode
    content_types: tuple[str, ...]
    """Media types in lower case, without parameters; the first one is used in the documentation."""
    description: str
    """The contents of a payload, for the documentation."""
    topics: tuple[str, ...] = ()
    """MQTT topic filters of messages in this format; the bridge subscribes to them and to those of the contract."""
