"""The energy of many devices, folded in the database, is that of the devices folded one by one."""

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from api import fleet, group_figures
from api.database import SESSION, Pool, connection
from api.energy import calendar
from api.energy.calendar import BucketName
from api.energy.quarter import quarters_of
from api.fleet import Buckets, fold
from api.group_figures import Row, rows_of
from api.groups import Group, Part
from api.read_limit import closed
from bridge.contract import KINDS, METER, VEHICLE
from bridge.keeper.hour_sql import Level
from bridge.keeper.hours import LEVELS, Hours
from bridge.reading import Reading, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Connection
from tests.integration.api.test_summaries import COLUMNS, DEVICES, LENGTH, START, ZONES, fill, name_of
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

EVERYTHING = [Part(kind, name_of(kind, sort)) for kind, sort in DEVICES]
STEADY = [Part(kind, f"{kind.name}_steady_{n}") for kind in KINDS for n in range(6)]
SHORT_US = fleet._SHORT_US
BUCKETS: tuple[BucketName, ...] = ("15m", "hour", "day", "total")


def edges_of(random_: random.Random) -> list:  # type: ignore[type-arg]
    start = START + timedelta(seconds=random_.choice([900 * random_.randrange(100), random_.uniform(0, 90_000)]))
    length = random_.choice([timedelta(days=1), timedelta(hours=random_.uniform(0.1, 20)), LENGTH, timedelta(days=4)])
    return calendar.edges(start, start + length, random_.choice(BUCKETS), ZoneInfo(random_.choice(ZONES)))


def known(row: Row) -> Row:
    """Without the number of devices of which something is known: a fold only says whether there is one."""
    ac, dc = (own._replace(measured=bool(own.measured)) for own in (row.ac, row.dc))
    return row._replace(ac=ac, dc=dc)


async def compare(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, random_: random.Random, count: int, parts: list[Part] = EVERYTHING
) -> None:
    groups = [Group("", parts)]
    groups += [Group(part.device, [part]) for part in parts if part.kind is VEHICLE]
    for _ in range(count):
        chosen = [groups[0]] if random_.random() < 0.5 else groups[1:]
        async with connection(pool) as c:
            buckets = Buckets(edges_of(random_), await closed(c), datetime.now(UTC))
        # As for a long time: the days whose readings are needed show when the summaries are read.
        monkeypatch.setattr(fleet, "_SHORT_US", random_.choice([0, SHORT_US]))
        found = []
        for folded_from in (0, 1e9):
            monkeypatch.setattr(group_figures, "_FOLDED_FROM", folded_from)
            found.append(await rows_of(pool, chosen, buckets, 60.0))
        for name, rows in found[1].items():
            assert list(map(known, found[0][name])) == list(map(known, rows)), (name, buckets.edges)


@pytest.mark.parametrize("seed", range(5))
async def test_fold_is_that_of_the_devices_one_by_one(
    seed: int, monkeypatch: pytest.MonkeyPatch, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    late = await fill(database_url, db, random_)
    if seed in (1, 2):
        await db.execute(
            "INSERT INTO device (kind, id, interval_s) SELECT k, k || '_' || s, 60 FROM unnest($1::text[]) k, "
            "unnest($2::text[]) s ON CONFLICT (kind, id) DO UPDATE SET interval_s = 60",
            [kind.name for kind in KINDS],
            sorted({sort for _, sort in DEVICES}),
        )
    async with asyncpg.create_pool(database_url, server_settings=SESSION, min_size=0, max_size=4) as pool:
        await compare(pool, monkeypatch, random_, 10)
        await summarize(db)
        await compare(pool, monkeypatch, random_, 25)
        await write(database_url, late)
        await compare(pool, monkeypatch, random_, 10)
        await summarize(db)
        await compare(pool, monkeypatch, random_, 15)


async def write(database_url: str, readings: list[Reading]) -> None:
    store = PostgresStore(database_url)
    await store.write(readings)
    await store.close()


def _not_of(level: Level) -> Callable[..., Awaitable[None]]:
    """A keeper that leaves the hours of one length as they are when a quarter hour is made again."""
    recompose = Hours.recompose

    async def others(hours: Hours, *arguments: Any) -> None:
        if hours._level is not level:
            await recompose(hours, *arguments)

    return others


def steady(random_: random.Random, n: int, part: Part) -> Iterator[Reading]:
    """A device whose readings are about as far apart as they should be: by intervals, or by both registers."""
    at, counters = START + timedelta(seconds=7 * n + 3), [100.0, 100.0]
    columns = COLUMNS[part.kind]
    while at < START + LENGTH:
        energy = random_.choice([0.0, 0.125, 1.5, -0.25])
        counters[energy < 0] += abs(energy)
        values = {columns[0]: energy} if n % 3 else dict(zip(columns[1:3], counters, strict=True))
        if n % 2 == 0 or random_.random() > 0.005:
            yield reading(part.kind, part.device, at, values)
        at += timedelta(seconds=60 if n < 4 else 60 + random_.uniform(-9, 9))


async def fill_steadily(database_url: str, db: Connection, random_: random.Random) -> list[Reading]:
    """Store them and declare half of them; returns readings between these, which are not stored yet."""
    made = [one for n, part in enumerate(STEADY) for one in steady(random_, n % 6, part)]
    for first in range(0, len(made), 5_000):
        await write(database_url, made[first : first + 5_000])
    declared = [(part.kind.name, part.device) for part in STEADY[::2]]
    await db.executemany("INSERT INTO device (kind, id, interval_s) VALUES ($1, $2, 60)", declared)
    return [_soon_after(one) for one in random_.sample(made, 30)]


def _soon_after(one: Reading) -> Reading:
    values = {m.column: getattr(one, m.column) for m in one.kind.measures if getattr(one, m.column) is not None}
    return reading(one.kind, one.device, one.timestamp + timedelta(seconds=20), values)


@pytest.mark.parametrize("seed", range(2))
async def test_fold_of_steady_devices_is_made_of_hours(
    seed: int, monkeypatch: pytest.MonkeyPatch, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    late = await fill_steadily(database_url, db, random_)
    await summarize(db)
    async with asyncpg.create_pool(database_url, server_settings=SESSION, min_size=0, max_size=4) as pool:
        await compare(pool, monkeypatch, random_, 15, STEADY)
        await write(database_url, late)
        await compare(pool, monkeypatch, random_, 10, STEADY)
        await summarize(db)
        await compare(pool, monkeypatch, random_, 10, STEADY)
        async with connection(pool) as c:
            keys = {part.device: 0 for part in STEADY if part.kind is METER}
            edges = [START + timedelta(hours=hours) for hours in (0, 25, 47)]
            days = Buckets(edges, await closed(c), datetime.now(UTC))
            for table in ("meter_hour", "meter_six_hour"):
                found = await fold(c, METER, keys, days, [], 60.0)
                await db.execute(f"UPDATE {table} SET readings = 1, first_us = 1, last_us = 2")
                assert found.figures != (await fold(c, METER, keys, days, [], 60.0)).figures
    assert set(found.others) <= {"meter_steady_1", "meter_steady_5"}, "these lost readings"


@pytest.mark.parametrize("bug", ["energy", "register", "late_readings_are_missing", "edges_do_not_divide", "time"])
@pytest.mark.parametrize("level", LEVELS, ids=["hours", "six_hours"])
async def test_compare_catches_wrong_hours(
    bug: str, level: Level, monkeypatch: pytest.MonkeyPatch, database_url: str, db: Connection
) -> None:
    random_ = random.Random(7)
    late = await fill_steadily(database_url, db, random_)
    await summarize(db)
    if bug == "late_readings_are_missing":
        monkeypatch.setattr(Hours, "recompose", _not_of(level))
        await write(database_url, late)
        await summarize(db)
    elif bug == "edges_do_not_divide":
        monkeypatch.setattr(fleet, "quarters_of", _undivided(level.length // timedelta(microseconds=1)))
    else:
        changed = {"energy": "interval_in = interval_in + 1", "register": "register_in_last = register_in_last - 1e-9"}
        for kind in KINDS:
            await db.execute(f"UPDATE {level.table(kind)} SET {changed.get(bug, 'last_us = last_us - 1')}")
    async with asyncpg.create_pool(database_url, server_settings=SESSION, min_size=0, max_size=4) as pool:
        with pytest.raises(AssertionError):
            await compare(pool, monkeypatch, random_, 30, STEADY)


def _undivided(undivided: int) -> Callable[[Iterable[int], int, int], set[int]]:
    """Edges divide no hours of this length."""

    def starts(instants: Iterable[int], offset: int, length: int) -> set[int]:
        return set() if length == undivided else quarters_of(instants, offset, length)

    return starts


async def test_steady_devices_are_folded_in_the_database(database_url: str, db: Connection) -> None:
    random_ = random.Random(3)
    await fill(database_url, db, random_)
    await db.execute(
        "INSERT INTO device (kind, id, interval_s) VALUES ('meter', 'meter_intervals', 60), "
        "('meter', 'meter_none', 60) ON CONFLICT (kind, id) DO UPDATE SET interval_s = 60"
    )
    await summarize(db)
    keys = {name_of(METER, sort): n for n, (_, sort) in enumerate(DEVICES[6:])}
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    try:
        edges = [START + timedelta(hours=hour) for hour in range(25)]
        folded = await fold(as_api, METER, keys, Buckets(edges, await closed(as_api), datetime.now(UTC)), [], 60.0)
    finally:
        await as_api.close()
    assert {"meter_none"} <= set(keys) - set(folded.others)


async def test_device_whose_first_register_comes_meanwhile_is_not_folded(
    monkeypatch: pytest.MonkeyPatch, database_url: str, db: Connection
) -> None:
    """Devices without registers have a statement that does not read them; it names those that have sent one by now."""
    await write(
        database_url,
        [
            reading(METER, device, START + timedelta(minutes=n), values)
            for device, values in (("plain", {"kwh_consumed_ac": 0.1}), ("late", {"kwh_import_register": 1.0}))
            for n in range(60)
        ],
    )
    sorts = fleet._sorts

    async def without_registers(*asked: Any) -> dict[tuple[bool, bool], list[str]]:
        found = await sorts(*asked)
        assert found == {(False, False): ["plain"], (False, True): ["late"]}
        return {(False, False): ["plain", "late"]}

    edges = [START, START + timedelta(hours=1)]
    buckets = Buckets(edges, await closed(db), datetime.now(UTC))
    assert (await fold(db, METER, {"plain": 0, "late": 1}, buckets, [], 60.0)).others == []
    monkeypatch.setattr(fleet, "_sorts", without_registers)
    folded = await fold(db, METER, {"plain": 0, "late": 1}, buckets, [], 60.0)
    assert (folded.others, folded.figures[0][0].inward > 0) == (["late"], True)
