"""T9, T9b: the same measures with more rows, devices and partitions, compared with small ones, alternating."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg

from api.database import SESSION
from bridge.contract import METER, VEHICLE
from bridge.store.tables import TABLES
from tests.bench.end_to_end import DEVICES, through
from tests.bench.history import DAYS, devices_of, fill, long_history
from tests.bench.load import Load, seed_columns, this_minute
from tests.bench.machine import Db, Machine, count_rows
from tests.bench.questions import in_turns, questions
from tests.bench.report import Figure, median_ratio, percentile

_ROUNDS = 3
_MANY_DAYS = 1_095
_LITTLE = 1_000_000
_CROWD = 1_000_000
_PRIME = """
INSERT INTO {live} ({device}, ts, received_at, {values})
SELECT '{prefix}' || lpad(d::text, 6, '0'), now() - interval '1 day', now(), {made}
FROM generate_series({first}, {devices} - 1, 2) AS d
"""


async def t9(machine: Machine) -> list[Figure]:
    """A long history compared with a short one, then many devices compared with few."""
    large = await long_history(machine)
    with machine.database() as small:
        await fill(small, _LITTLE)
        name = f"{machine.rows:,} rows : {_LITTLE:,}"
        asked = await _asked(machine, (large, devices_of(machine.rows)), (small, devices_of(_LITTLE)))
        stored = await _stored(machine, large, small)
    return [
        _figure("T9 T1", f"end to end, {name}", stored, 0.9, 1.0),
        _figure("T9 T8", f"analytics p99, {name}", asked, 1.2, 1.05, lower=True),
        _figure("T9 devices", f"end to end, {_CROWD:,} devices : {DEVICES:,}", await _crowds(machine), 0.8, 0.95),
    ]


async def t9b(machine: Machine) -> list[Figure]:
    """Three years of daily partitions, most of them nearly empty, compared with a week's."""
    with machine.database() as many, machine.database() as few:
        for url in (many, few):
            await fill(url, _LITTLE)
        await _age(many)
        devices = devices_of(_LITTLE)
        asked = await _asked(machine, (many, devices), (few, devices))
        stored = await _stored(machine, many, few)
    name = f"{_MANY_DAYS:,} daily partitions : {DAYS}"
    return [
        _figure("T9b T1", f"end to end, {name}", stored, 0.9, 1.0),
        _figure("T9b T8", f"analytics p99, {name}", asked, 1.5, 1.1, lower=True),
    ]


def _figure(
    key: str, measure: str, pairs: list[tuple[float, float]], must: float, aim: float, lower: bool = False
) -> Figure:
    ratio, rounds = median_ratio(pairs)
    first, second = (f"{value * 1e3:.2f} ms" if lower else f"{value:,.0f}/s" for value in pairs[-1])
    ceiling = "one at a time" if lower else "see T1"
    return Figure(key, measure, ratio, must, aim, lower, ceiling=ceiling, detail=f"{first} : {second}; {rounds}")


async def _asked(machine: Machine, *databases: tuple[str, int]) -> list[tuple[float, float]]:
    """p99 of the API's SQL in both databases, with sequential queries."""
    async with _connected(machine, databases[0][0]) as first, _connected(machine, databases[1][0]) as second:
        asks = [questions(db, devices)[0] for db, (_, devices) in zip((first, second), databases, strict=True)]
        rounds = [await in_turns(asks[0], asks[1], 500 if machine.quick else 3_000) for _ in range(_ROUNDS)]
    return [(percentile(times.asked, 0.99), percentile(times.least, 0.99)) for times in rounds]


@contextlib.asynccontextmanager
async def _connected(machine: Machine, url: str) -> AsyncIterator[Db]:
    db: Db = await asyncpg.connect(machine.as_login(url, "api"), server_settings=SESSION)
    try:
        yield db
    finally:
        await db.close()


async def _stored(machine: Machine, *urls: str) -> list[tuple[float, float]]:
    """End to end into both databases; each round uses different seconds, so that there are no duplicates."""
    rates: list[tuple[float, float]] = []
    for n in range(_ROUNDS):
        load = Load(_messages(machine), DEVICES, this_minute() - timedelta(seconds=n + 1))
        first, second = [(await through(machine, load, url)).rate for url in urls]
        rates.append((first, second))
    return rates


def _messages(machine: Machine) -> int:
    return 100_000 if machine.quick else 400_000


async def _crowds(machine: Machine) -> list[tuple[float, float]]:
    """End to end with devices that are all known; in each minute they report in random order."""
    return [(await _crowd(machine, _CROWD), await _crowd(machine, DEVICES)) for _ in range(_ROUNDS)]


async def _crowd(machine: Machine, devices: int) -> float:
    load = Load(_messages(machine), devices, this_minute(), stride=7_919)
    with machine.database() as url:
        async with _owner(url) as db:
            for kind, first, prefix, made in ((VEHICLE, 0, "EV_", "50, 1, 25"), (METER, 1, "METER_", "1, 230")):
                columns = {"device": kind.id_column, "values": ", ".join(seed_columns(kind)), "made": made}
                names = {"first": first, "prefix": prefix, "devices": devices}
                await db.execute(_PRIME.format(live=kind.live_table, **columns, **names))
            await db.execute("VACUUM (ANALYZE) vehicle_live_status, meter_live_status")
        rate = (await through(machine, load, url)).rate
        if await count_rows(url) != load.readings:
            raise RuntimeError("readings are missing from the history, or are stored twice")
        return rate


@contextlib.asynccontextmanager
async def _owner(url: str) -> AsyncIterator[Db]:
    db: Db = await asyncpg.connect(url)
    try:
        yield db
    finally:
        await db.close()


async def _age(url: str) -> None:
    """Give both histories a partition for each day of three years, with a few rows in each."""
    async with _owner(url) as db:
        today = this_minute().date()
        for day in (today - timedelta(days=n) for n in range(_MANY_DAYS)):
            for table in TABLES:
                await db.execute("SELECT ensure_partition($1::text::regclass, $2)", table.history, day)
        for kind, values in ((VEHICLE, "50, 1, 25"), (METER, "1, 230")):
            await db.execute(
                f"INSERT INTO {kind.history_table} ({kind.id_column}, ts, {', '.join(seed_columns(kind))}) "
                f"SELECT 'OLD_' || d, now() - n * interval '1 day', {values} "
                f"FROM generate_series(1, 20) AS d, generate_series({DAYS + 2}, {_MANY_DAYS - 2}) AS n"
            )
            await db.execute(f"VACUUM (ANALYZE) {kind.history_table}")
