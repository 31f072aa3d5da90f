"""An MQTT publisher with minimal cost: packets are encoded beforehand, PUBACKs are only counted."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Self

from bridge.mqtt.codec import ConnectPacket, PubAckPacket, PublishPacket, QoS
from bridge.mqtt.session import Event, Session
from bridge.mqtt.transport import Transport
from bridge.mqtt.url import Broker, broker_of

_ANSWER_TIMEOUT_S = 10.0


class Publisher:
    """One connection. `acked` counts the PUBACKs, for any reason code."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        session = Session(ConnectPacket(client_id, username=broker.username, password=broker.password))
        self._transport = Transport(session, self._receive, gathers=True)
        self._changed = asyncio.Event()
        self.acked = 0

    @classmethod
    async def open(cls, url: str, client_id: str, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, and wait for the broker's answer."""
        broker = broker_of(url)._replace(tls=tls)
        publisher = cls(broker, client_id)
        await publisher._transport.open(broker, _ANSWER_TIMEOUT_S)
        publisher._transport.closed.add_done_callback(lambda _: publisher._changed.set())
        return publisher

    def _receive(self, events: Sequence[Event]) -> None:
        self.acked += sum(type(event) is PubAckPacket for event in events)
        self._changed.set()

    def send(self, packets: bytes) -> None:
        """Hand packets to the socket."""
        self._transport.write(packets)

    async def until_acked(self, count: int) -> None:
        """Wait until `count` messages are acknowledged in all. Raises `ConnectionError` when that cannot be."""
        while self.acked < count:
            if self._transport.closed.done():
                raise ConnectionError(f"the publisher's connection ended: {self._transport.closed.result()}")
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        self._transport.close()


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH with QoS 1."""
    return PublishPacket(topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=packet_id).write()
