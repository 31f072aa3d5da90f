"""One network connection of an MQTT lane: packets out, packets in, and a notice when it is over."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import mqtt5

from simulator.endpoints import Broker

T = TypeVar("T")

KEEP_ALIVE_S = 30
_SESSION_EXPIRY_S = 600


class Refused(Exception):
    """The broker does not let us in; trying again would not help."""


class Connection(asyncio.Protocol):
    """Hands each read's packets to `received` at once, so that their answers can leave together."""

    def __init__(self, broker: Broker, client_id: str, received: Callable[[Sequence[object]], None]) -> None:
        self._received = received
        self._greeting = mqtt5.ConnectPacket(
            client_id,
            username=broker.username,
            password=broker.password,
            session_expiry_interval=_SESSION_EXPIRY_S,
            keep_alive=KEEP_ALIVE_S,
        )
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._last_heard = time.monotonic()
        self._pinger: asyncio.TimerHandle | None = None
        self.writable = False
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the connection is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 20)
        self.writable = True
        self.write(self._greeting.write())
        self._ping()

    def data_received(self, data: bytes) -> None:
        self._last_heard = time.monotonic()
        view = memoryview(self._buffer + data if self._buffer else data)
        offset = 0
        packets: list[object] = []
        while offset < len(view):
            try:
                packet, length = mqtt5.read(view[offset:])
            except IndexError:
                break  # the rest of this packet is still on its way
            except ValueError as error:
                self.abort(f"malformed packet: {error}")
                return
            offset += length
            packets.append(packet)
        self._buffer = bytes(view[offset:])
        self._received(packets)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._received([])

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(str(exc or "closed by the broker"))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def disconnect(self) -> None:
        """Say goodbye and end the session: nothing is owed to us."""
        self.write(mqtt5.DisconnectPacket(session_expiry_interval=0).write())
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        self._transport, self.writable = None, False
        if self._pinger is not None:
            self._pinger.cancel()
        if not self.closed.done():
            self.closed.set_result(reason)

    def _ping(self) -> None:
        if time.monotonic() - self._last_heard > KEEP_ALIVE_S * 1.5:
            self.abort("the broker is silent")
            return
        self.write(mqtt5.PingReqPacket().write())
        self._pinger = asyncio.get_running_loop().call_later(KEEP_ALIVE_S / 2, self._ping)


async def answer(connection: Connection, coming: "asyncio.Future[T]") -> T:
    """What is coming, if it comes before the connection ends. Raises `EOFError`."""
    futures: set[asyncio.Future[Any]] = {coming, connection.closed}
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    if coming.done():
        return coming.result()
    coming.cancel()
    raise EOFError(connection.closed.result())
