"""An MQTT 3.1.1 publisher with minimal cost, for NATS: packets are encoded beforehand, PUBACKs are only counted."""

import asyncio
import struct
from typing import Self

from bridge.mqtt.url import broker_of

_CONNACK = _PUBACK = 4
_LIMIT = 1 << 20


def _text(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _packet(first: int, body: bytes) -> bytes:
    """A packet with its length, section 2.2 of MQTT 3.1.1."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((first,)) + bytes(encoded) + body


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH with QoS 1."""
    return _packet(0x32, _text(topic.encode()) + struct.pack(">H", packet_id) + payload)


class Publisher311:
    """One connection. Its broker sends nothing but PUBACKs, of four bytes each."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._received = 0
        self.acked = 0

    @classmethod
    async def open(cls, url: str, client_id: str) -> Self:
        """Connect, and wait for the broker's answer."""
        broker = broker_of(url)
        reader, writer = await asyncio.open_connection(broker.host, broker.port, limit=_LIMIT)
        account = _text((broker.username or "").encode()) + _text(broker.password or b"")
        writer.write(_packet(0x10, _text(b"MQTT") + bytes((4, 0xC2)) + b"\0\0" + _text(client_id.encode()) + account))
        answer = await reader.readexactly(_CONNACK)
        if answer[3] != 0:
            raise ConnectionError(f"the broker refused the connection: {answer[3]}")
        return cls(reader, writer)

    def send(self, packets: bytes) -> None:
        """Hand packets to the socket."""
        self._writer.write(packets)

    async def until_acked(self, count: int) -> None:
        """Wait until `count` messages are acknowledged in all. Raises `ConnectionError` when that cannot be."""
        while self.acked < count:
            received = await self._reader.read(_LIMIT)
            if not received:
                raise ConnectionError("the publisher's connection ended")
            self._received += len(received)
            self.acked = self._received // _PUBACK

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
