"""The messages of one network read: they become one delivery, and some of them get a receipt after the commit.

An object for each message would be a third of the CPU time of a reading, so messages that were received together are
written and settled together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mqtt5

from bridge.delivery import Item, Outcome, Receipt
from bridge.sources.mqtt_topics import meant

_MOST_LEVELS = 100  # of a response topic; Mosquitto disconnects a client that publishes to a topic with more than 200
_LONGEST_TOPIC, _MOST_CORRELATION_BYTES = 512, 1_024  # they are in memory until the commit
LIGHT_BYTES = 2_048
"""A JSON object of at most so many bytes is light."""
LIGHT_SEPARATORS = 16
"""Of a light array: two or three readings. A hundred bytes can have as many elements, each of which is a reject."""


class Message(NamedTuple):
    """What is used of a PUBLISH packet. Its other properties, of any size, are not kept in memory."""

    topic: str
    payload: bytes
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None

    @classmethod
    def of(cls, packet: mqtt5.PublishPacket, topic: str, payload: bytes) -> "Message":
        """The message of a packet, whose topic and payload were read: the codec creates new objects on each access."""
        return cls(topic, payload, packet.content_type, packet.response_topic, packet.correlation_data)

    @property
    def size_bytes(self) -> int:
        """The bytes that it occupies until it is settled."""
        return len(self.payload) + len(self.response_topic or "") + len(self.correlation or b"")


def is_light(payload: bytes, most_separators: int) -> bool:
    """Whether a payload that is no small object is decoded and stored in a fraction of a millisecond, as that is."""
    return len(payload) <= LIGHT_BYTES and payload.count(b",") + payload.count(b"\n") <= most_separators


class Request(NamedTuple):
    """A message's request for a receipt: the response topic, and the range of its items in the arrival."""

    topic: str
    correlation: bytes | None
    start: int
    stop: int


class Arrival:
    """Messages in the order of receipt. `items` is flat; only requests for a receipt store a range of it."""

    __slots__ = ("first", "items", "messages", "requests", "size_bytes", "turn_weight")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first message in its session."""
        self.items: list[Item] = []
        self.messages = 0
        self.requests: list[Request] = []
        self.size_bytes = 0
        self.turn_weight = 0
        """If it is one message that has waited for its turn: what it takes to be written."""

    def add(self, packet: mqtt5.PublishPacket, topic: str, size_bytes: int, items: Sequence[Item]) -> None:
        """Add a message whose payload of `size_bytes` was decoded to `items`."""
        response_topic = packet.response_topic
        if response_topic is not None:
            self._request(topic, response_topic, packet.correlation_data, len(items))
        self.items += items
        self.messages += 1
        self.size_bytes += size_bytes

    def add_message(self, message: Message, items: Sequence[Item], weight: int) -> None:
        """The same for a message that has waited."""
        if message.response_topic is not None:
            self._request(message.topic, message.response_topic, message.correlation, len(items))
        self.items += items
        self.messages += 1
        self.size_bytes += len(message.payload)
        self.turn_weight = weight

    def skip(self) -> None:
        """Add a message that is discarded: it is settled with the others."""
        self.messages += 1

    def _request(self, topic: str, response_topic: str, correlation: bytes | None, items: int) -> None:
        """Note that the next `items` get a receipt, if it may be sent there."""
        correlation_bytes = len(correlation or b"")
        if correlation_bytes > _MOST_CORRELATION_BYTES or not _own_response_topic(topic, response_topic):
            return
        start = len(self.items)
        self.requests.append(Request(response_topic, correlation, start, start + items))
        self.size_bytes += len(response_topic) + correlation_bytes

    def receipts(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[Request, Receipt]]:
        """Yield the requested receipts, given one outcome per item."""
        for request in self.requests:
            yield request, Receipt.of(outcomes[request.start : request.stop])


def _own_response_topic(topic: str, response_topic: str) -> bool:
    """Whether receipts may be sent to it: a valid topic below the device's prefix, where nobody expects telemetry."""
    prefix = topic.removesuffix("telemetry")
    below = response_topic.startswith(prefix) and len(response_topic) > len(prefix)
    if len(response_topic) > _LONGEST_TOPIC:
        return False
    valid = response_topic.count("/") < _MOST_LEVELS and not any(sign in response_topic for sign in "+#\0")
    return below and valid and response_topic != topic and meant(response_topic) is None
