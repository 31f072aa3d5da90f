"""Raw MQTT 5 of an attacker with a device's certificate."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import mqtt5

from tests.acceptance.attacks.attack import Target

_PUBACK = 4
_SUBACK = 9
_PIECE = 16_384
ADDRESS = ("127.0.0.2", 0)
"""The attacker's: limits of an address are not those of the victim."""


class Device:
    """A connection whose CONNECT was accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: "Line") -> None:
        self._line = line
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send packets; waits while the broker does not read. Raises `ConnectionError` when it has gone."""
        for begin in range(0, len(data), _PIECE):
            if self._writer.transport.is_closing():
                raise ConnectionResetError("the broker has closed the connection")
            piece = data[begin : begin + _PIECE]
            self._writer.write(piece)
            await self._writer.drain()
            await self._line.passed(len(piece))

    async def packet(self) -> int:
        """Read a packet and forget it; its type."""
        try:
            return await self._packet()
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the broker has closed the connection") from None

    async def _packet(self) -> int:
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


class Line:
    """The device's way to the broker: its certificate, and the rate of all its connections together."""

    def __init__(self, target: Target) -> None:
        files = Path(target.credentials)
        self.context = ssl.create_default_context(cafile=str(files / "ca.crt"))
        self.context.load_cert_chain(files / "device.crt", files / "device.key")
        self.port = target.tls_port
        self._bytes_per_s = target.mqtt_bytes_per_s
        self._free_at = 0.0

    async def passed(self, size: int) -> None:
        """Wait until the line has passed so many bytes."""
        if self._bytes_per_s:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._bytes_per_s
        # Also without a limit: only so the end of the connection is noticed while the buffer has room.
        await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))


@contextlib.asynccontextmanager
async def device(
    line: Line,
    *,
    receive_max: int = 65_535,
    session_expiry_s: int = 0,
    reads: bool = True,
    will: mqtt5.Will | None = None,
) -> AsyncIterator[Device]:
    """A connection of the attacker's device; with `reads` a task reads what comes. Reset at the end."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", line.port, ssl=line.context, server_hostname="localhost", local_addr=ADDRESS
    )
    one = Device(reader, writer, line)
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
