"""The real bridge, relay or API, with a crash at a named point or with a bug planted.

`python -m tests.acceptance.chaos.crashing_bridge POINT NTH bridge|api run` runs it, and `... bridge relay`.

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
from bridge.sources import kafka
from bridge.sources.kafka import KafkaSource
from bridge.sources.mqtt import MqttSource
from bridge.sources.mqtt_arrival import Arrival
from bridge.store import postgres as store_module
from bridge.store.postgres import PostgresStore
from bridge.store.synchronous import Confirmations
from bridge.store.timeline import Fence, Timeline
from bridge.streams.port import Done, Message
from bridge.streams.publishing import Publisher

_PUBACK = 0x40
_WITHHELD_S = 3600.0
"""How long readings that were acknowledged are not written: the kill comes before, however busy the machine is."""


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
    """Everything is acknowledged at once, and not written before the kill."""

    async def wrapped(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
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
            await asyncio.sleep(_WITHHELD_S if crossed.is_set() else 0.2)
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


def offset_before_commit(_: int) -> None:
    """The offset of a record is committed when the record is read, which is not written before the kill."""
    hand_over, write = KafkaSource._hand_over, PostgresStore.write

    def wrapped(self: KafkaSource, arrival: kafka.Arrival) -> None:
        for partition, end in arrival.ends.items():
            partition.settled = end
        hand_over(self, arrival)

    async def write_later(self: PostgresStore, items: Sequence[Item]) -> list[Outcome]:
        await asyncio.sleep(_WITHHELD_S if items else 0)
        return await write(self, items)

    KafkaSource._hand_over = wrapped  # type: ignore[method-assign]
    PostgresStore.write = write_later  # type: ignore[method-assign]


def ack_before_stream(_: int) -> None:
    """A message is acknowledged to the broker before the stream has it."""
    publish = Publisher.publish

    def wrapped(self: Publisher, message: Message, done: Done) -> None:
        done(None)
        publish(self, message, lambda _: None)

    Publisher.publish = wrapped  # type: ignore[method-assign]


def unconfirmed(_: int) -> None:
    """What only the primary has is acknowledged: a duplicate waits for no standby, and no warning is heeded."""

    async def confirm(connection: Any) -> None:
        pass

    def require(self: Confirmations) -> None:
        pass

    store_module.confirm = confirm  # type: ignore[attr-defined]
    Confirmations.require = require  # type: ignore[method-assign]


def unfenced(_: int) -> None:
    """Any server that accepts writes will do."""

    def pass_through(self: Fence, found: Timeline) -> None:
        pass

    Fence.pass_through = pass_through  # type: ignore[method-assign]


POINTS = {
    "received": received,
    "before-commit": before_commit,
    "after-commit": after_commit,
    "mid-acks": mid_acks,
    "ack-before-commit": ack_before_commit,
    "dropped-batch": dropped_batch,
    "stale-acks": stale_acks,
    "offset-before-commit": offset_before_commit,
    "ack-before-stream": ack_before_stream,
    "unconfirmed": unconfirmed,
    "unfenced": unfenced,
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](int(sys.argv[2]))
    del sys.argv[1:3]
    program = sys.argv.pop(1)
    runpy.run_module(program, run_name="__main__", alter_sys=True)
