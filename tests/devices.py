"""Devices for the tests, on clients that are not ours: aiomqtt (MQTT 5 and 3.1.1), paho-mqtt, and bare packets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Literal
from urllib.parse import urlsplit

import aiomqtt
import mqtt5
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

Version = Literal["5", "3.1.1"]
_AIOMQTT = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}
_PAHO = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


def device(url: str, version: Version = "5", identifier: str | None = None) -> aiomqtt.Client:
    """An aiomqtt client for this URL, to be entered."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return aiomqtt.Client(
        parts.hostname,
        parts.port or 1883,
        username=parts.username,
        password=parts.password,
        identifier=identifier,
        protocol=_AIOMQTT[version],
    )


async def publish_with_paho(
    url: str, version: Version, messages: Iterable[tuple[str, bytes]], qos: int = 1, retain: bool = False
) -> None:
    """Connect with paho-mqtt, publish, wait for every acknowledgement, disconnect."""
    await asyncio.to_thread(_publish, url, version, list(messages), qos, retain)


def _publish(url: str, version: Version, messages: list[tuple[str, bytes]], qos: int, retain: bool) -> None:
    parts = urlsplit(url)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=_PAHO[version])
    client.username_pw_set(parts.username, parts.password)
    client.connect(parts.hostname or "", parts.port or 1883)
    client.loop_start()
    try:
        for message in [client.publish(topic, payload, qos, retain) for topic, payload in messages]:
            message.wait_for_publish(10)
            assert message.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


class Bare:
    """An MQTT 5 connection that sends the packets it is told to, sane or not, and shows what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""

    def send(self, *packets: mqtt5.Packet) -> None:
        self._writer.write(b"".join(packet.write() for packet in packets))

    async def receive(self) -> mqtt5.Packet | None:
        """The next packet, or None when the broker has closed the connection."""
        while True:
            with contextlib.suppress(IndexError):
                packet, length = mqtt5.read(memoryview(self._buffer))
                self._buffer = self._buffer[length:]
                return packet
            try:
                data = await self._reader.read(65_536)
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data

    async def closed(self) -> None:
        """Wait until the broker has closed the connection."""
        while await self.receive() is not None:
            pass


@contextlib.asynccontextmanager
async def bare_device(url: str, identifier: str = "", *, clean_start: bool = True) -> AsyncIterator[Bare]:
    """A bare connection whose CONNECT was accepted; cut in the end, without a goodbye."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    bare = Bare(reader, writer)
    try:
        login = {"username": parts.username, "password": (parts.password or "").encode()}
        bare.send(mqtt5.ConnectPacket(identifier, clean_start=clean_start, **login))  # type: ignore[arg-type]
        answer = await bare.receive()
        assert isinstance(answer, mqtt5.ConnAckPacket)
        assert answer.reason_code == mqtt5.ConnAckReasonCode.SUCCESS
        yield bare
    finally:
        writer.transport.abort()
