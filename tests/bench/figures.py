"""F1, F2, F3, F4, F9: questions about energy in a long history with summaries, and the size of the summaries.

Each question is compared with a minimal request, with the last 24 hours of the same vehicle, or with plain SQL.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import asyncpg

from api import analytics
from api.database import SESSION
from api.fleet import Buckets, fold
from api.period import EARLIEST, Period
from api.read_limit import Closed
from bridge import memory
from bridge.contract import KIND_OF, METER, VEHICLE, Kind
from bridge.store.tables import TABLES
from tests.bench.fleet import YEAR, Fleet, long_fleet
from tests.bench.http_servers import Client, Refused, api
from tests.bench.load import vehicle_name
from tests.bench.machine import Db, Machine
from tests.bench.questions import Times, in_turns
from tests.bench.report import Figure, median_ratio

_Ask = Callable[[], Awaitable[None]]
_ROUNDS = 3
_DAY, _MONTH = timedelta(days=1), timedelta(days=30)
_MINUTES = 1440
_OWN, _OTHER = "Europe/Berlin", "Asia/Kolkata"
_SUMS = "SELECT date_trunc('hour', ts), sum({energy}) FROM {history} WHERE ts >= $1 AND ts < $2 GROUP BY 1 ORDER BY 1"
_BYTES = (
    "SELECT sum(pg_total_relation_size(inhrelid))::int8 FROM pg_inherits WHERE inhparent = ANY ($1::text[]::regclass[])"
)


async def f1(machine: Machine) -> list[Figure]:
    """The last 24 hours of a random vehicle and its meter: the queries and the code of the API, then the route."""
    count = 300 if machine.quick else 2_000
    memory.calm_collector()  # as the API does
    fleet = await long_fleet(machine)
    db: Db = await asyncpg.connect(machine.as_login(fleet.url, "api"), server_settings=SESSION)
    try:
        direct = {declared: await _direct(db, fleet, declared, count) for declared in (False, True)}
    finally:
        await db.close()
    async with api(machine, fleet.url) as running:
        client = Client(running)
        routed = {declared: await _routed(client, fleet, declared, count) for declared in (False, True)}
        client.close()
    return [
        _compared("F1", "24 hours of a vehicle p99 : SELECT 1 p99", direct, 6, 4, fleet),
        _compared("F1 HTTP", "the same p99 : /healthz p99", routed, 5, 3, fleet),
    ]


async def _direct(db: Db, fleet: Fleet, declared: bool, count: int) -> list[Times]:
    async def ask() -> None:
        figures = await analytics.ask(db, _random_vehicle(fleet, declared), _until_now(fleet, _DAY), 60.0)
        _check_day(figures.vehicle.readings(figures.period), figures.feeds[0].readings)

    async def least() -> None:
        await db.fetchval("SELECT 1")

    return [await in_turns(ask, least, count) for _ in range(_ROUNDS)]


async def _routed(client: Client, fleet: Fleet, declared: bool, count: int) -> list[Times]:
    async def ask() -> None:
        await _ask_day(client, fleet, _random_vehicle(fleet, declared))

    async def least() -> None:
        await client.get("/healthz")

    return [await in_turns(ask, least, count) for _ in range(_ROUNDS)]


def _compared(key: str, measure: str, rounds: dict[bool, list[Times]], must: float, aim: float, fleet: Fleet) -> Figure:
    """Of vehicles that are not declared; those that are declared in the detail."""
    ratio, shown = median_ratio([times.p99s for times in rounds[False]])
    declared, declared_shown = median_ratio([times.p99s for times in rounds[True]])
    detail = f"{rounds[False][-1].shown()}; {shown}; declared {declared:.2f} ({declared_shown}); {fleet.rows:,} rows"
    return Figure(key, measure, ratio, must, aim, True, ceiling="one at a time", detail=detail)


def _random_vehicle(fleet: Fleet, declared: bool) -> str:
    return vehicle_name(random.randrange(2 if declared else 0, fleet.devices, 4))


def _until_now(fleet: Fleet, span: timedelta) -> Period:
    return Period(fleet.end - span, fleet.end)


def _check_day(*readings: int) -> None:
    if min(readings) != _MINUTES:
        raise RuntimeError(f"{_MINUTES} readings of a day are expected, {min(readings)} were found")


async def _ask_day(client: Client, fleet: Fleet, vehicle: str) -> None:
    path = f"/v1/analytics/performance/{vehicle}?{_period(_until_now(fleet, _DAY))}"
    found = json.loads(await client.get(path))
    _check_day(found["readings"], found["meters"][0]["readings"])


def _period(period: Period) -> str:
    return urlencode({"from": period.start.isoformat(), "to": period.end.isoformat()})


async def f2(machine: Machine) -> list[Figure]:
    """A vehicle's year by day, in the time zone that is declared for it and in another one."""
    fleet = await long_fleet(machine)
    year = _period(_until_now(fleet, YEAR - _DAY))
    found: list[Figure] = []
    for key, zone, must, aim in (("F2", _OWN, 10, 5), ("F2 other", _OTHER, 120, 60)):

        def path(vehicle: str, zone: str = zone) -> str:
            return f"/v1/analytics/energy?of=vehicles&id={vehicle}&bucket=day&tz={zone}&{year}"

        measure = f"a vehicle's year by day in {zone} : its 24 hours"
        found.append(await _against_day(machine, fleet, path, Figure(key, measure, math.inf, must, aim, True)))
    return found


async def f4(machine: Machine) -> list[Figure]:
    """A vehicle's sessions of a month."""
    fleet = await long_fleet(machine)
    month = _period(_until_now(fleet, _MONTH))

    def path(vehicle: str) -> str:
        return f"/v1/sessions?vehicle={vehicle}&limit=1000&{month}"

    wanted = Figure("F4", "a vehicle's sessions of a month : its 24 hours", math.inf, 20, 10, True)
    return [await _against_day(machine, fleet, path, wanted)]


async def _against_day(machine: Machine, fleet: Fleet, path: Callable[[str], str], wanted: Figure) -> Figure:
    """The median of a question about a vehicle, compared with the median of its last 24 hours; infinite if refused."""
    count = 5 if machine.quick else 20
    vehicles = [vehicle_name(n) for n in range(0, fleet.old, 2)]
    turns = {"asked": 0, "least": 0}

    def next_vehicle(side: str) -> str:
        turns[side] += 1
        return vehicles[turns[side] % len(vehicles)]

    async with api(machine, fleet.url) as running:
        client = Client(running)

        async def ask() -> None:
            found = json.loads(await client.get(path(next_vehicle("asked"))))
            if len(found["items"]) < _MONTH // _DAY:
                raise RuntimeError("an answer has fewer items than days")

        async def least() -> None:
            await _ask_day(client, fleet, next_vehicle("least"))

        try:
            rounds = [await in_turns(ask, least, count) for _ in range(_ROUNDS)]
        except Refused as refusal:
            return wanted._replace(detail=f"not answered: {refusal}")
        finally:
            client.close()
    ratio, shown = median_ratio([times.medians for times in rounds])
    return wanted._replace(value=ratio, ceiling="one at a time", detail=f"{rounds[-1].shown()}; {shown}")


async def f3(machine: Machine) -> list[Figure]:
    """The energy of the whole fleet in a day by hour, compared with the same from its readings, and with plain SQL.

    The sums of plain SQL are no answer: they know no gaps, no coverage, and no edges of hours between two readings.
    """
    fleet = await long_fleet(machine)
    start = fleet.end.replace(minute=0) - timedelta(hours=23)
    period = Period(start, fleet.end)
    name = f"a day of {fleet.devices // 2:,} vehicles and {fleet.devices // 2:,} meters by hour"
    raw = Figure("F3", f"the same from readings : {name}", 0, 15, 50)
    times = Figure("F3 SQL", f"sums of the readings in SQL : {name}", 0, None, None)
    seconds = Figure("F3 time", name, math.inf, 1.5, 0.5, True, " s")
    if machine.quick:
        seconds = seconds._replace(must=None, aim=None)
    db: Db = await asyncpg.connect(fleet.url)
    try:
        async with api(machine, fleet.url) as running:
            client = Client(running)
            try:
                rounds = await _fleet_by_hour(client, db, period)
            except Refused as refusal:
                return [figure._replace(detail=f"not answered: {refusal}") for figure in (raw, times, seconds)]
            finally:
                client.close()
    finally:
        await db.close()
    (asked, summed), read = rounds.medians, await _from_readings(machine, fleet, period)
    detail = f"{asked:.3f} s : {summed:.3f} s; rounds " + " ".join(
        f"{b / a:.1f}" for a, b in zip(rounds.asked, rounds.least, strict=True)
    )
    return [
        raw._replace(value=read / asked, detail=f"{asked:.3f} s : {read:.1f} s, once"),
        times._replace(value=summed / asked, detail=detail),
        seconds._replace(value=asked, detail=detail),
    ]


async def _from_readings(machine: Machine, fleet: Fleet, period: Period) -> float:
    """How long the API's own queries take without summaries, which the route refuses for so many devices: seconds."""
    never = dict.fromkeys(KIND_OF, EARLIEST)
    hours = [period.start + n * timedelta(hours=1) for n in range(24)]
    buckets = Buckets([*hours, period.end], Closed(never, never, never), datetime.now(UTC))

    async def of_kind(kind: Kind) -> None:
        db: Db = await asyncpg.connect(machine.as_login(fleet.url, "api"), server_settings=unlimited)
        try:
            devices = await db.fetch(f"SELECT {kind.id_column} FROM {kind.live_table}")
            if (found := await fold(db, kind, {row[0]: 0 for row in devices}, buckets, [], 60.0)).others:
                raise RuntimeError(f"{len(found.others)} devices were not folded")
        finally:
            await db.close()

    unlimited = SESSION | {"statement_timeout": "0"}
    began = time.monotonic()
    await asyncio.gather(*map(of_kind, KIND_OF.values()))
    return time.monotonic() - began


async def _fleet_by_hour(client: Client, db: Db, period: Period) -> Times:
    """Both in turns. Their totals must agree, except for the readings at the period's edges."""
    path = f"/v1/analytics/energy?of=fleet&bucket=hour&{_period(period)}"
    totals = {"ac": 0.0, "dc": 0.0, "meter": 0.0, "vehicle": 0.0}

    async def ask() -> None:
        items = json.loads(await client.get(path))["items"]
        totals.update(ac=sum(item["kwhAc"] for item in items), dc=sum(item["kwhDc"] for item in items))

    async def least() -> None:
        for kind, interval in ((METER, METER.interval), (VEHICLE, VEHICLE.interval)):
            assert interval is not None
            sql = _SUMS.format(energy=interval.column, history=kind.history_table)
            totals[kind.name] = sum(row[1] for row in await db.fetch(sql, period.start, period.end))

    rounds = await in_turns(ask, least, 5)
    for route, sums in (("ac", "meter"), ("dc", "vehicle")):
        if not math.isclose(totals[route], totals[sums], rel_tol=0.01):
            raise RuntimeError(f"the fleet's energy is {totals[route]}, the sum of its readings is {totals[sums]}")
    return rounds


async def f9(machine: Machine) -> list[Figure]:
    """Bytes of the summaries, compared with those of the history, with all indexes."""
    fleet = await long_fleet(machine)
    db: Db = await asyncpg.connect(fleet.url)
    try:
        kinds = [table.kind for table in TABLES]
        tables = [name for kind in kinds for name in (kind.quarter_table, kind.hour_table, kind.six_hour_table)]
        summaries: int = await db.fetchval(_BYTES, tables)
        history: int = await db.fetchval(_BYTES, [table.history for table in TABLES])
    finally:
        await db.close()
    detail = f"{summaries / 1e6:,.0f} MB : {history / 1e6:,.0f} MB; {history / fleet.rows:.0f} bytes a reading"
    return [Figure("F9", "disk of summaries : history", summaries / history, 0.12, 0.08, True, detail=detail)]
