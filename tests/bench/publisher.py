"""An MQTT publisher that costs as little as one can: packets are bytes made beforehand, PUBACKs are only counted."""

import asyncio
import ssl
from typing import Self, cast
from urllib.parse import unquote, urlsplit

import mqtt5

_PUBACK = 0x40
_GATHER_S = 0.002


class Publisher(asyncio.Protocol):
    """One connection. `acked` counts the PUBACKs, whatever they say."""

    def __init__(self, url: str, client_id: str) -> None:
        parts = urlsplit(url)
        self._connect = mqtt5.ConnectPacket(
            client_id,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or "").encode(),
            keep_alive=0,
        )
        self._rest = b""
        self._changed = asyncio.Event()
        self._connected = False
        self._lost = False
        self.acked = 0

    @classmethod
    async def open(cls, url: str, client_id: str, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, and wait for the broker's answer."""
        parts = urlsplit(url)
        _, publisher = await asyncio.get_running_loop().create_connection(
            lambda: cls(url, client_id), parts.hostname or "", parts.port or 1883, ssl=tls
        )
        while not publisher._connected:
            await publisher._next_change()
        return publisher

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._connect.write())

    def data_received(self, data: bytes) -> None:
        self._connected = True  # the first packet is the CONNACK, and a refusal closes the connection
        data = self._rest + data
        at, end = 0, len(data)
        while at + 2 <= end and at + 2 + data[at + 1] <= end:  # every packet that comes is shorter than 128 bytes
            self.acked += data[at] == _PUBACK
            at += 2 + data[at + 1]
        self._rest = data[at:]
        self._changed.set()
        self.transport.pause_reading()  # the broker writes each PUBACK by itself: let some gather
        asyncio.get_running_loop().call_later(_GATHER_S, self.transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost = True
        self._changed.set()

    def send(self, packets: bytes) -> None:
        """Hand packets to the socket."""
        self.transport.write(packets)

    async def until_acked(self, count: int) -> None:
        """Wait until `count` messages are acknowledged in all. Raises `ConnectionError` when that cannot be."""
        while self.acked < count:
            await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        if self._lost:
            raise ConnectionError("the broker closed the publisher's connection")

    def close(self) -> None:
        self.transport.close()


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH with QoS 1."""
    return mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id).write()
