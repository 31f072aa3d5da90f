"""Whether messages of a consumer arrived without a gap. Pure.

One acknowledgement covers all messages before it, so a message that was lost on its way must be noticed before a later
one is acknowledged. The server numbers the deliveries of a consumer from 1 after a reset.
"""

from collections.abc import Mapping

_SHORT = 9  # tokens of $JS.ACK.STREAM.CONSUMER.DELIVERIES.STREAM_SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING
_AT = 6
_DOMAIN_TOKENS = 2  # a domain and an account stand before the stream in the longer form


class OutOfOrder(Exception):
    """Messages were lost on their way, or another client reads from the same consumer."""


class Order:
    """The deliveries of a consumer since its reset, and how many messages the server may still send."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the last delivery."""
        self.awaited = 0
        """Messages that were requested and have not arrived."""

    def arrived(self, reply: str) -> None:
        """Note a delivery by its reply subject. Raises `OutOfOrder`."""
        tokens = reply.split(".")
        number = int(tokens[_AT if len(tokens) == _SHORT else _AT + _DOMAIN_TOKENS])
        if number != self.last + 1:
            raise OutOfOrder(f"delivery {number} arrived after delivery {self.last}")
        self.last = number
        self.awaited -= 1

    def idle(self, headers: Mapping[str, str]) -> None:
        """Compare with a heartbeat, which names the last delivery. Raises `OutOfOrder`."""
        if (last := headers.get("Nats-Last-Consumer")) is not None and int(last) != self.last:
            raise OutOfOrder(f"the server has sent delivery {last}, but delivery {self.last} was the last to arrive")

    def ended(self, headers: Mapping[str, str]) -> bool:
        """Note the end of a request; False when its status does not say how many messages are not coming."""
        if (pending := headers.get("Nats-Pending-Messages")) is None:
            return False
        self.awaited -= int(pending)
        return True
