"""One network connection of a session: the only module of this package with a socket and a clock."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import mqtt5

from bridge.mqtt.session import Ended, Event, Session
from bridge.mqtt.url import Broker

T = TypeVar("T")

_GATHER_S = 0.002
_BUSY_BYTES, _GATHER_BUSY_S = 6_000, 0.010  # at this rate a wake-up every 2 ms costs more than the longer delay
_FULL_BYTES = 250_000  # uvloop (256,000) and asyncio read hardly more at once; more waits: a pause would limit the rate
_UNSENT_BYTES = 1 << 20


class ConnectionLost(Exception):
    """The connection is closed; the session continues with the next one."""


class ConnectionRefused(ConnectionLost):
    """The broker refused CONNECT."""

    def __init__(self, code: mqtt5.ConnAckReasonCode) -> None:
        super().__init__(f"the broker refused the connection: {code.name}")
        self.code = code


class Transport(asyncio.Protocol):
    """Passes the events of each read to `receive` in one call, so that their responses are sent in one write.

    With `gathers`, reading pauses for some ms after each read: a broker writes each message separately, and a read per
    message would cost more than the message. `receive` is also called, without events, when writing may continue.
    """

    def __init__(self, session: Session, receive: Callable[[Sequence[Event]], None], *, gathers: bool) -> None:
        self._session, self._receive, self._gathers = session, receive, gathers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answers: dict[type, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._flush_due = self._is_behind = False
        self.writable = False
        """Whether less than 1 MiB is waiting to be sent."""
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection is closed."""

    async def open(self, broker: Broker, timeout_s: float) -> None:
        """Connect and wait for the CONNACK. Raises `ConnectionRefused`, `ConnectionLost`, `OSError`, `TimeoutError`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(lambda: self, broker.host, broker.port, ssl=broker.tls)
                connack = self._session.connack
                if connack is None:
                    connack = await self._answer(mqtt5.ConnAckPacket)
            if connack.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
                raise ConnectionRefused(connack.reason_code)
        except BaseException:
            self.abort("not opened")
            raise
        self._arm()  # the broker may have shortened the keep-alive

    async def subscribe(self, filters: Sequence[mqtt5.TopicFilter]) -> mqtt5.SubAckPacket:
        """Subscribe and wait for the SUBACK, which the broker sends after a backlog. Raises `ConnectionLost`."""
        self._session.subscribe(filters)
        self.flush()
        return await self._answer(mqtt5.SubAckPacket)

    async def _answer(self, kind: type[T]) -> T:
        coming = self._answers[kind] = self._loop.create_future()
        await asyncio.wait({coming, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            raise ConnectionLost(self.closed.result())
        answer: T = coming.result()
        return answer

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it
        self._transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        self.writable = True
        self._session.connect(time.monotonic())
        self.flush()
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._is_behind = len(data) >= _FULL_BYTES
            self._take(self._session.receive_data(data, time.monotonic()))
            if self._gathers and len(data) < _FULL_BYTES:
                self._gather(_GATHER_S if len(data) < _BUSY_BYTES else _GATHER_BUSY_S)

    def is_behind(self) -> bool:
        """Whether a read since the last call, and none after it, had as much as is read at once: more may wait."""
        is_behind, self._is_behind = self._is_behind, False
        return is_behind

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._receive(())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(str(exc or "closed by the broker"))

    # -- events and time

    def _take(self, events: Sequence[Event]) -> None:
        for event in events if self._answers else ():
            answer = self._answers.pop(type(event), None)
            if answer is not None and not answer.done():
                answer.set_result(event)
        self._receive(events)
        if events and isinstance(events[-1], Ended):
            self.abort(events[-1].reason)
        self.flush()

    def _arm(self) -> None:
        """Schedule the timer for the session's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._session.next_deadline()
        if deadline is not None and self._transport is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._due)

    def _due(self) -> None:
        self._take(self._session.handle_deadline(time.monotonic(), listening=not self._paused))
        self._arm()

    # -- writing

    def flush(self) -> None:
        """Write all pending bytes of the session at once."""
        self._flush_due = False
        if self._transport is not None and (data := self._session.data_to_send()):
            self._transport.write(data)

    def flush_soon(self) -> None:
        """Flush after this iteration of the event loop, so that further packets are sent in the same write."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def write(self, packets: bytes) -> None:
        """Write packets of a caller that does not use the session for them."""
        if self._transport is not None:
            self._transport.write(packets)

    # -- reading

    def _gather(self, wait_s: float) -> None:
        if self._transport is not None and not self._paused:
            self._transport.pause_reading()
            self._loop.call_later(wait_s, self._gathered)

    def _gathered(self) -> None:
        if self._transport is not None and not self._paused:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Stop reading until `resume`; bytes that were read already are still processed."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Continue reading after `pause`."""
        if self._paused:
            self._paused = False
            self._gathered()

    # -- end

    def close(self) -> None:
        """Close the connection after all pending bytes are written."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close the connection at once; the broker will redeliver unacknowledged messages."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        if not self.closed.done():
            self.writable = False
            self._session.connection_lost()
            self._arm()
            self.closed.set_result(reason)
