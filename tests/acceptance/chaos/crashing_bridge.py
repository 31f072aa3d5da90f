"""The real bridge, or API, with a crash at a named point or with a bug planted.

`python -m tests.acceptance.chaos.crashing_bridge POINT NTH bridge|api run` runs it.

Nothing of this is in `bridge/`: its functions are wrapped here, then `python -m bridge run` runs unchanged.
Crash points kill the process with SIGKILL at the n-th time; planted bugs stay, to show that `verify` sees them.
"""

import asyncio
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from bridge.delivery import Item, Kept, Outcome, Settlement
from bridge.errors import Rejected, StoreUnavailable
from bridge.mqtt.session import Messages
from bridge.mqtt.transport import Transport
from bridge.sources.mqtt import MqttSource
from bridge.sources.mqtt_arrival import Arrival
from bridge.store import postgres as store_module
from bridge.store.postgres import PostgresStore

_PUBACK = 0x40


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Countdown:
    """Kills at the n-th call."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self) -> None:
        if self.due():
            _die()

    def due(self) -> bool:
        self._left -= 1
        return self._left == 0


# -- crash points


def received(nth: int) -> None:
    """Taken from the broker and decoded, not yet written."""
    write, countdown = PostgresStore.write, _Countdown(nth)

    async def wrapped(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
        if items:
            countdown()
        return await write(self, items)

    PostgresStore.write = wrapped  # type: ignore[method-assign]


def before_commit(nth: int) -> None:
    """All rows are written, the COMMIT is not sent: that moment is only in a transaction of several statements."""
    store_module.FEW = 0
    store_rejects, countdown = store_module._store_rejects, _Countdown(nth)

    async def wrapped(connection: Any, rejects: Sequence[Rejected], source: str) -> None:
        await store_rejects(connection, rejects, source)
        countdown()

    store_module._store_rejects = wrapped


def after_commit(nth: int) -> None:
    """Committed, nothing acknowledged."""
    transaction, countdown = PostgresStore._transaction, _Countdown(nth)

    async def wrapped(self: PostgresStore, connection: Any, items: Sequence[Item]) -> list[Outcome]:
        outcomes = await transaction(self, connection, items)
        if items:
            countdown()
        return outcomes

    PostgresStore._transaction = wrapped  # type: ignore[method-assign]


def mid_acks(nth: int) -> None:
    """Half of the bytes of a batch's acknowledgements are with the broker."""
    flush, countdown = Transport.flush, _Countdown(nth)

    class Half:
        def __init__(self, transport: Any) -> None:
            self._transport = transport

        def write(self, data: bytes) -> None:
            if data[0] == _PUBACK and countdown.due():
                os.write(self._transport.get_extra_info("socket").fileno(), data[: len(data) // 2])
                time.sleep(0.01)  # the broker reads them before the reset comes
                _die()
            self._transport.write(data)

    def wrapped(self: Transport) -> None:
        transport = self._transport
        self._transport = None if transport is None else Half(transport)  # type: ignore[assignment]
        try:
            flush(self)
        finally:
            self._transport = transport

    Transport.flush = wrapped  # type: ignore[method-assign]


# -- planted bugs


def ack_before_commit(_: int) -> None:
    """Everything is acknowledged at once and written a moment later."""
    write, later = PostgresStore.write, set[asyncio.Task[Any]]()

    async def write_later(self: PostgresStore, items: Sequence[Item]) -> None:
        await asyncio.sleep(0.5)
        await write(self, items)

    async def wrapped(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
        if items:
            later.add(asyncio.create_task(write_later(self, items)))
        return [item if isinstance(item, Rejected) else Kept.STORED for item in items]

    PostgresStore.write = wrapped  # type: ignore[method-assign]


def dropped_batch(nth: int) -> None:
    """The n-th batch is acknowledged and never written."""
    write, countdown = PostgresStore.write, _Countdown(nth)

    async def wrapped(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
        if items and countdown.due():
            return [item if isinstance(item, Rejected) else Kept.STORED for item in items]
        return await write(self, items)

    PostgresStore.write = wrapped  # type: ignore[method-assign]


def stale_acks(_: int) -> None:
    """Acks of a lost connection go out on the next one, and then the process is killed.

    The first batch is held back until the next connection has messages of its own outstanding, and they are not
    written any more.
    """
    settle, messages_received = MqttSource._settle, MqttSource._messages_received
    write, connections = PostgresStore.write, set[int]()
    two_outstanding, crossed = asyncio.Event(), asyncio.Event()

    def remember(self: MqttSource, messages: Messages, times: Any) -> None:
        if any(packet.topic.startswith("fleet/") for packet in messages.packets):
            connections.add(self._session._connection_first)
            if len(connections) > 1:
                two_outstanding.set()
        messages_received(self, messages, times)

    async def held_back(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
        if items:
            await two_outstanding.wait()
            await asyncio.sleep(3600 if crossed.is_set() else 0.2)
        return await write(self, items)

    def wrapped(self: MqttSource, arrival: Arrival, settlement: Settlement) -> None:
        session = self._session
        if session.is_stale(arrival.first) and not isinstance(settlement, StoreUnavailable):
            arrival.requests.clear()
            arrival.first, arrival.messages = session._oldest, min(arrival.messages, len(session._unacked))
            crossed.set()
            asyncio.get_running_loop().call_later(0.2, _die)
        settle(self, arrival, settlement)

    MqttSource._messages_received = remember  # type: ignore[method-assign]
    MqttSource._settle = wrapped  # type: ignore[method-assign]
    PostgresStore.write = held_back  # type: ignore[method-assign]


POINTS = {
    "received": received,
    "before-commit": before_commit,
    "after-commit": after_commit,
    "mid-acks": mid_acks,
    "ack-before-commit": ack_before_commit,
    "dropped-batch": dropped_batch,
    "stale-acks": stale_acks,
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](int(sys.argv[2]))
    del sys.argv[1:3]
    program = sys.argv.pop(1)
    runpy.run_module(program, run_name="__main__", alter_sys=True)
