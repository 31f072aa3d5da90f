"""What one network read brought: its messages as one delivery, and what each of them is owed after the commit.

The path of a reading is short enough that an object for each message would be a third of its cost, so messages that
came together are written and settled together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mqtt5

from bridge.delivery import Item, Outcome, Receipt

_MOST_LEVELS = 100  # of a response topic; Mosquitto cuts the connection of whoever publishes to more than 200


class Request(NamedTuple):
    """One message's wish for a receipt: where to, and which of the arrival's items are its own."""

    topic: str
    correlation: bytes | None
    start: int
    stop: int


class Arrival:
    """Messages in the order of receipt. `items` is flat; only a message that wants a receipt has its bounds kept."""

    __slots__ = ("first", "items", "messages", "requests", "size_bytes")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first message in its session."""
        self.items: list[Item] = []
        self.messages = 0
        self.requests: list[Request] = []
        self.size_bytes = 0

    def add(self, packet: mqtt5.PublishPacket, topic: str, size_bytes: int, items: Sequence[Item]) -> None:
        """Take a message whose payload, of that size, was decoded to `items`."""
        response_topic = packet.response_topic
        if response_topic is not None and _own_response_topic(topic, response_topic):
            start = len(self.items)
            self.requests.append(Request(response_topic, packet.correlation_data, start, start + len(items)))
        self.items += items
        self.messages += 1
        self.size_bytes += size_bytes

    def receipts(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[Request, bytes]]:
        """The receipts that were asked for, given one outcome per item."""
        for request in self.requests:
            yield request, Receipt.of(outcomes[request.start : request.stop]).encode()


def _own_response_topic(topic: str, response_topic: str) -> bool:
    """Whether receipts may go there: a topic, no filter, below the device's own prefix, and not its telemetry."""
    prefix = topic.removesuffix("telemetry")
    below = response_topic.startswith(prefix) and len(response_topic) > len(prefix)
    sound = response_topic.count("/") < _MOST_LEVELS and not any(sign in response_topic for sign in "+#\0")
    return below and sound and response_topic != topic
