"""The lifecycle of a run's lanes: started together, drained, stopped; the ledger is closed in every case."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
from rich.console import Console

from bridge.mqtt.url import Broker
from simulator.assignments import WORKERS, Registrar
from simulator.contact import give_up
from simulator.endpoints import Api
from simulator.fleet import Device
from simulator.http import HttpLane
from simulator.lane import Lane, Waiting
from simulator.ledger import LedgerWriter
from simulator.message import Message
from simulator.mqtt import MqttLane
from simulator.mqtt311 import Mqtt311Lane
from simulator.progress import show
from simulator.tally import Tally

Via = Literal["mqtt", "http", "both"]

_MOST_WAITING = 8_000
"""Messages in memory that no lane has sent yet."""
_MESSAGES_A_TURN = 1_000
"""Messages offered before the event loop runs again, so that each lane sends many with one write."""
_GRACE_FOR_RECEIPTS_S = 10.0


@dataclass(frozen=True)
class Route:
    """The protocol and servers of a run, and the path of the ledger."""

    via: Via
    connections: int
    broker: Broker | None
    mqtt_version: Literal["5", "3.1.1"]
    api: Api | None
    http_batch: int
    receipt_share: float
    assignments: bool
    ledger: Path
    fsync: bool

    def is_http(self, lane: int) -> bool:
        """Which lanes use HTTP: with `both` every second one."""
        return self.via == "http" or (self.via == "both" and lane % 2 == 1)


class Carriers:
    """Lanes with a ledger. A device always uses the same lane, so its messages keep their order."""

    def __init__(self, lanes: Sequence[Lane], ledger: LedgerWriter, tally: Tally, registrar: Registrar | None) -> None:
        self._lanes = lanes
        self.ledger = ledger
        self.tally = tally
        self.registrar = registrar
        self._offered = 0

    async def carry(self, message: Message) -> None:
        """Pass the message to its lane; wait while the lane is full."""
        lane = self._lanes[message.device % len(self._lanes)]
        lane.offer(message)
        self._offered += 1
        if self._offered % _MESSAGES_A_TURN == 0:
            await asyncio.sleep(0)  # let the event loop send
        if lane.is_full:
            await lane.room()

    async def drained(self) -> None:
        """Wait until everything is acknowledged, and a limited time longer for receipts."""
        while not all(lane.idle for lane in self._lanes):  # noqa: ASYNC110 - cheaper than an event for each ack
            await asyncio.sleep(0.05)
        if self.registrar is not None:
            await self.registrar.registered()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_FOR_RECEIPTS_S):
                while any(lane.awaits_receipts for lane in self._lanes):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def carriers(
    route: Route,
    devices: Sequence[Device],
    info: dict[str, Any],
    stop: asyncio.Event,
    console: Console,
    total: int | None = None,
) -> AsyncIterator[Carriers]:
    """Start the lanes; on exit stop them and flush the ledger. Raises the failure of a lane, and `Unreachable`.

    `total` is the number of readings that will be sent, if it is known.
    """
    run_id = secrets.token_bytes(8)
    ledger = LedgerWriter(
        route.ledger, {**info, "run": run_id.hex(), "created": datetime.now(UTC).isoformat()}, route.fsync
    )
    for device in devices:
        ledger.device(device.kind, device.id)
    ledger.flush()
    tally = Tally()
    connections = route.connections + WORKERS
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        lanes = [_lane(number, route, client, devices, ledger, tally, run_id) for number in range(route.connections)]
        registrar = None
        if route.api is not None and route.assignments:
            registrar = Registrar(client, route.api, devices, ledger, tally)
        work: list[Coroutine[Any, Any, None]] = [lane.run() for lane in lanes]
        if registrar is not None:
            work.append(registrar.run())
        watch = give_up(tally.contacts, lambda: tally.acknowledged, stop)
        async with _running([*work, watch, show(tally, console, total)]):
            try:
                yield Carriers(lanes, ledger, tally, registrar)
            finally:
                ledger.flush()


@contextlib.asynccontextmanager
async def _running(work: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run the work concurrently with the body, end it with the body, and raise its failure."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()


def _lane(
    number: int,
    route: Route,
    client: httpx.AsyncClient,
    devices: Sequence[Device],
    ledger: LedgerWriter,
    tally: Tally,
    run_id: bytes,
) -> Lane:
    waiting = Waiting(max(64, _MOST_WAITING // route.connections))
    if route.is_http(number):
        assert route.api is not None
        return HttpLane(client, route.api, ledger, tally, route.http_batch, waiting)
    assert route.broker is not None
    client_id = f"fleet-simulator-{run_id.hex()}-{number}"
    own = {device: devices[device] for device in range(number, len(devices), route.connections)}
    if route.mqtt_version == "3.1.1":
        return Mqtt311Lane(route.broker, client_id, own, ledger, tally, route.receipt_share, waiting)
    return MqttLane(route.broker, client_id, own, ledger, tally, run_id, route.receipt_share, waiting)
