"""The messages of one network read: they become one delivery, and some of them get a receipt after the commit.

An object for each message would be a third of the CPU time of a reading, so messages that were received together are
written and settled together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mqtt5

from bridge.delivery import Item, Outcome, Receipt

_MOST_LEVELS = 100  # of a response topic; Mosquitto disconnects a client that publishes to a topic with more than 200


class Request(NamedTuple):
    """A message's request for a receipt: the response topic, and the range of its items in the arrival."""

    topic: str
    correlation: bytes | None
    start: int
    stop: int


class Arrival:
    """Messages in the order of receipt. `items` is flat; only requests for a receipt store a range of it."""

    __slots__ = ("first", "items", "messages", "requests", "size_bytes")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first message in its session."""
        self.items: list[Item] = []
        self.messages = 0
        self.requests: list[Request] = []
        self.size_bytes = 0

    def add(self, packet: mqtt5.PublishPacket, topic: str, size_bytes: int, items: Sequence[Item]) -> None:
        """Add a message whose payload of `size_bytes` was decoded to `items`."""
        response_topic = packet.response_topic
        if response_topic is not None and _own_response_topic(topic, response_topic):
            start = len(self.items)
            self.requests.append(Request(response_topic, packet.correlation_data, start, start + len(items)))
        self.items += items
        self.messages += 1
        self.size_bytes += size_bytes

    def receipts(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[Request, bytes]]:
        """Yield the requested receipts, given one outcome per item."""
        for request in self.requests:
            yield request, Receipt.of(outcomes[request.start : request.stop]).encode()


def _own_response_topic(topic: str, response_topic: str) -> bool:
    """Whether receipts may be sent to it: a valid topic below the device's prefix, not its telemetry topic."""
    prefix = topic.removesuffix("telemetry")
    below = response_topic.startswith(prefix) and len(response_topic) > len(prefix)
    valid = response_topic.count("/") < _MOST_LEVELS and not any(sign in response_topic for sign in "+#\0")
    return below and valid and response_topic != topic
