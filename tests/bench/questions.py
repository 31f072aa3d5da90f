"""T8: a vehicle's last day in a long history, compared with minimal requests to the database and the API."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from api import analytics
from api.database import SESSION
from api.period import Period
from bridge import memory
from tests.bench.end_to_end import DEVICES, until
from tests.bench.history import devices_of, long_history
from tests.bench.http_servers import Client, RunningApi, api
from tests.bench.load import Load, this_minute, vehicle_name
from tests.bench.machine import Db, Machine, flood, result_of
from tests.bench.report import Figure, median_ratio, percentile

RATE = 16_700
_DAY = timedelta(days=1)
_ROUNDS = 3


class Times(NamedTuple):
    """Seconds of each response: of the analytics, and of the reference."""

    asked: list[float]
    least: list[float]

    @property
    def p99s(self) -> tuple[float, float]:
        return percentile(self.asked, 0.99), percentile(self.least, 0.99)

    @property
    def medians(self) -> tuple[float, float]:
        return percentile(self.asked, 0.5), percentile(self.least, 0.5)

    def shown(self) -> str:
        p = [f"{percentile(values, p) * 1e3:.2f}" for values in self for p in (0.5, 0.99)]
        return f"p50 {p[0]} p99 {p[1]} ms : p50 {p[2]} p99 {p[3]} ms"


async def in_turns(ask: Callable[[], Awaitable[None]], least: Callable[[], Awaitable[None]], count: int) -> Times:
    """Query both alternately; the first tenth is a warm-up."""
    times = Times([], [])
    for n in range(-count // 10, count):
        for values, question in zip(times, (ask, least), strict=True):
            began = time.perf_counter()
            await question()
            if n >= 0:
                values.append(time.perf_counter() - began)
    return times


def questions(db: Db, devices: int) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """The figures of a random vehicle's last day, and `SELECT 1`."""

    async def ask() -> None:
        now = datetime.now(UTC)
        figures = await analytics.ask(db, random_vehicle(devices), Period(now - _DAY, now), 60.0)
        _check(figures.vehicle.readings(figures.period), figures.feeds[0].readings)

    async def least() -> None:
        await db.fetchval("SELECT 1")

    return ask, least


def random_vehicle(devices: int) -> str:
    return vehicle_name(random.randrange(0, devices, 2))


def _check(*readings: int) -> None:
    if min(readings) < _DAY.total_seconds() / 60 - 30:  # the history was generated some minutes ago
        raise RuntimeError("a day's readings are missing from an answer")


async def t8(machine: Machine) -> list[Figure]:
    """The SQL idle and under load, then the route."""
    count = 1_000 if machine.quick else 3_000
    memory.calm_collector()  # as the API does
    url, devices = await long_history(machine), devices_of(machine.rows)
    db: Db = await asyncpg.connect(machine.as_login(url, "api"), server_settings=SESSION)
    try:
        ask, least = questions(db, devices)
        idle = [await in_turns(ask, least, count) for _ in range(_ROUNDS)]
        loaded, rate = await _under_load(machine, url, ask, least)
    finally:
        await db.close()
    async with api(machine, url) as running:
        over_http = [await _over_http(running, devices, count) for _ in range(_ROUNDS)]
    made = f"; {devices * 10_080:,} rows"
    return [
        _figure("T8", "analytics p99 : SELECT 1 p99, idle", idle, 8, 4, made),
        _figure("T8 load", f"the same at {RATE:,} readings/s", loaded, 15, 8, f"; load {rate:,.0f}/s"),
        _figure("T8 HTTP", "analytics p99 : /healthz p99", over_http, 6, 3, made),
    ]


def _figure(key: str, measure: str, rounds: list[Times], must: float, aim: float, more: str) -> Figure:
    ratio, shown = median_ratio([times.p99s for times in rounds])
    detail = f"{rounds[-1].shown()}; {shown}{more}"
    return Figure(key, measure, ratio, must, aim, True, ceiling="one at a time", detail=detail)


async def _under_load(
    machine: Machine, url: str, ask: Callable[[], Awaitable[None]], least: Callable[[], Awaitable[None]]
) -> tuple[list[Times], float]:
    """Query while a bridge stores a steady load, all of which must be stored in the end."""
    load = Load(RATE * (15 if machine.quick else 60), DEVICES, this_minute())
    rounds: list[Times] = []
    with machine.broker() as broker, machine.bridge(url, broker) as bridge:
        async with flood(broker, load, rate=RATE) as process:
            flooding = asyncio.create_task(result_of(process))
            await asyncio.sleep(1)
            while not flooding.done():
                rounds.append(await in_turns(ask, least, 300))
            sent = await flooding
        await until(lambda: bridge.counted("stored", "duplicate", "rejected") >= load.readings)
        if bridge.counted("stored") != load.readings:
            raise RuntimeError("the bridge did not store every reading of the load")
    return rounds[:-1] or rounds, sent["rate"]  # the last one outlasted the load


async def _over_http(running: RunningApi, devices: int, count: int) -> Times:
    client = Client(running)

    async def ask() -> None:
        found = json.loads(await client.get(f"/v1/analytics/performance/{random_vehicle(devices)}"))
        _check(found["readings"], found["meters"][0]["readings"])

    async def least() -> None:
        await client.get("/healthz")

    try:
        return await in_turns(ask, least, count)
    finally:
        client.close()
