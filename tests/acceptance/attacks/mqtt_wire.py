"""Raw MQTT 5 of an attacker with a device's certificate."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import mqtt5

from tests.acceptance.attacks.attack import Target

_PUBACK = 4
_SUBACK = 9


class Device:
    """A connection whose CONNECT was accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send packets; waits while the broker does not read. Raises `ConnectionError` when it has gone."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the broker has closed the connection")
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)  # drain does not let the end of the connection be noticed while the buffer has room

    async def packet(self) -> int:
        """Read a packet and forget it; its type."""
        first = (await self._reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        await self._reader.readexactly(length)
        return first >> 4

    async def acknowledged(self, count: int) -> None:
        """Read until so many PUBACKs have come."""
        while count:
            count -= await self.packet() == _PUBACK

    async def subscribed(self) -> None:
        """Read until a SUBACK has come."""
        while await self.packet() != _SUBACK:
            pass

    async def read(self) -> None:
        """Read and forget what comes, until the connection ends."""
        while await self._reader.read(65_536):
            pass


def tls(target: Target) -> ssl.SSLContext:
    """TLS with the device's certificate."""
    files = Path(target.credentials)
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    context.load_cert_chain(files / "device.crt", files / "device.key")
    return context


@contextlib.asynccontextmanager
async def device(
    target: Target,
    context: ssl.SSLContext,
    *,
    receive_max: int = 65_535,
    session_expiry_s: int = 0,
    reads: bool = True,
    will: mqtt5.Will | None = None,
) -> AsyncIterator[Device]:
    """A connection of the attacker's device; with `reads` a task reads what comes. Reset at the end."""
    reader, writer = await asyncio.open_connection("localhost", target.tls_port, ssl=context)
    one = Device(reader, writer)
    reading: asyncio.Task[None] | None = None
    try:
        await one.send(
            mqtt5.ConnectPacket(
                "x",
                clean_start=True,
                receive_max=receive_max,
                session_expiry_interval=session_expiry_s,
                keep_alive=60,
                will=will,
            ).write()
        )
        await one.packet()
        if reads:
            reading = asyncio.create_task(one.read())
        yield one
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()
