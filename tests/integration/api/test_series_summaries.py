"""A series is the same from the summaries of quarter hours and from the readings, and it reads few readings."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from api.database import SESSION
from api.period import Period
from api.series_sql import summaries_sql
from bridge.contract import KIND_OF, KINDS, METER, VEHICLE, Kind
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Api, Connection, assert_problem
from tests.integration.api.test_summaries import DEVICES, LENGTH, START, fill, name_of
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

QUARTER = timedelta(minutes=15)
MEMBERS = ("count", "first", "last", "min", "max")
DAYS = 3


def question(random_: random.Random) -> tuple[str, dict[str, Any]]:
    """Some measures of a device in a part of two days, mostly in columns of quarter hours."""
    kind, sort = random_.choice(DEVICES)
    first = timedelta(seconds=random_.choice([900 * random_.randrange(150), random_.uniform(0, 140_000)]))
    length = random_.choice([timedelta(days=1), timedelta(minutes=random_.randrange(1, 2_000)), LENGTH])
    names = random_.sample([m.name for m in kind.measures], random_.randint(1, 3))
    return f"/v1/analytics/series/{kind.plural}/{name_of(kind, sort)}", {
        "from": format_timestamp(START + first),
        "to": format_timestamp(START + first + length),
        "measure": random_.choice([names, [m.name for m in kind.of_sort("gauge")]]),
        "points": random_.choice([1, 2, 5, 20, 100, 1_000]),
    }


async def ask(client: httpx.AsyncClient, path: str, query: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def assert_is_of_the_readings(db: Connection, path: str, query: dict[str, Any], found: dict[str, Any]) -> None:
    """Every column has exactly the values of its readings, and every reading is in a column."""
    kind = next(kind for kind in KINDS if f"/{kind.plural}/" in path)
    since, until = (datetime.fromisoformat(query[name]) for name in ("from", "to"))
    sql = f"SELECT * FROM {kind.history_table} WHERE {kind.id_column} = $1 AND ts >= $2 AND ts < $3 ORDER BY ts"
    stored = await db.fetch(sql, path.rpartition("/")[2], since, until)
    columns = {measure.name: measure.column for measure in kind.measures}
    for one in found["series"]:
        values = [(row["ts"], row[columns[one["measure"]]]) for row in stored]
        known = [(at, value) for at, value in values if value is not None]
        assert sum(column["count"] for column in one["columns"]) == len(known)
        assert len(one["columns"]) <= query["points"]
        n = 0
        for column in one["columns"]:
            start, end = (datetime.fromisoformat(column[name]) for name in ("from", "to"))
            own = [value for at, value in known[n : n + column["count"]] if start <= at < end]
            n += len(own)
            expected = (len(own), own[0], own[-1], min(own), max(own))
            assert tuple(column[name] for name in MEMBERS) == expected, (path, query, one["measure"], column)


@pytest.mark.parametrize("seed", range(2))
async def test_series_is_of_the_readings_with_and_without_summaries(
    seed: int, client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    late = await fill(database_url, db, random_)
    questions = [question(random_) for _ in range(60)]

    async def check() -> None:
        for path, query in questions:
            await assert_is_of_the_readings(db, path, query, await ask(client, path, query))

    await check()
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter") > 500
    await check()
    await write(database_url, late)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter_dirty") > 100
    await check()
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter_dirty") == 0
    await check()


async def write(database_url: str, readings: Sequence[Reading]) -> None:
    store = PostgresStore(database_url)
    await store.write(readings)
    await store.close()


def steady(kind: Kind, *messages: dict[str, float], days: int = DAYS) -> list[Reading]:
    """Readings of a device every minute, of these messages by turns."""
    times = [START + timedelta(minutes=n) for n in range(days * 1_440)]
    return [reading(kind, "D", at, dict(messages[n % len(messages)])) for n, at in enumerate(times)]


def days(first: int, beyond: int, **query: Any) -> dict[str, Any]:
    since, until = (format_timestamp(START + timedelta(days=n)) for n in (first, beyond))
    return {"from": since, "to": until, "points": 6} | query


async def test_columns_begin_at_quarter_hours_and_are_cut_to_the_period(
    client: httpx.AsyncClient, database_url: str
) -> None:
    await write(database_url, steady(METER, {"voltage": 230.0}, days=1))
    period = {
        "from": format_timestamp(START + timedelta(minutes=7)),
        "to": format_timestamp(START + timedelta(minutes=97)),
    }
    found = await ask(client, "/v1/analytics/series/meters/D", period | {"measure": "voltage", "points": 4})
    minutes = [
        tuple((datetime.fromisoformat(column[name]) - START) / timedelta(minutes=1) for name in ("from", "to"))
        for column in found["series"][0]["columns"]
    ]
    assert minutes == [(7, 30), (30, 60), (60, 90), (90, 97)]


async def test_summarized_quarter_hours_are_not_read(
    start_api: Callable[..., Api], token: str, database_url: str, db: Connection
) -> None:
    """With a limit of a tenth of a day, most of three days must come from summaries."""
    api = start_api(query_range_limit_days=0.1)
    await write(database_url, steady(METER, {"voltage": 230.0, "kwh_import_register": 7.0, "kwh_consumed_ac": 0.1}))
    path, query = "/v1/analytics/series/meters/D", days(0, DAYS, measure=["voltage", "kwhImportRegister"])
    async with api.client(token) as client:
        refusal = "from: more than 0.1 days would have to be read from single readings: ask for less time"
        assert_problem(await client.get(path, params=query), 422, refusal)
        await summarize(db)
        await assert_is_of_the_readings(db, path, query, await ask(client, path, query))
        interval = await client.get(path, params=days(0, DAYS, measure=["voltage", "kwhConsumedAc"]))
        assert_problem(interval, 422, f"{refusal}, or leave out kwhConsumedAc, which is in no summary")


async def test_gauges_of_separate_messages_are_read_at_the_ends_of_columns_only(
    start_api: Callable[..., Api], token: str, database_url: str, db: Connection
) -> None:
    """No quarter hour has a summary of first and last; two in each of six columns are an eighth of a day."""
    api = start_api(query_range_limit_days=0.13)
    await write(database_url, steady(VEHICLE, {"soc": 50.0}, {"power_kw": 11.0}))
    await summarize(db)
    path, query = "/v1/analytics/series/vehicles/D", days(0, DAYS, measure=["soc", "powerKw"])
    async with api.client(token) as client:
        await assert_is_of_the_readings(db, path, query, await ask(client, path, query))


async def test_time_to_come_does_not_count(
    start_api: Callable[..., Api], token: str, database_url: str, db: Connection
) -> None:
    api = start_api(query_range_limit_days=5)
    await write(database_url, steady(METER, {"voltage": 230.0}))
    await summarize(db)
    query = days(0, 400, measure="voltage")
    async with api.client(token) as client:
        path = "/v1/analytics/series/meters/D"
        await assert_is_of_the_readings(db, path, query, await ask(client, path, query))


async def test_ten_years_are_the_longest_period(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/analytics/series/meters/D", params=days(-1, 3_660, measure="voltage"))
    assert_problem(answer, 422, "from: the period exceeds 3660 days")


async def test_detached_day_is_left_out_as_from_readings(
    client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    await write(database_url, steady(METER, {"voltage": 230.0}))
    await summarize(db)
    query, partition = days(0, DAYS, measure="voltage", points=DAYS), f"meter_telemetry_history_{START:%Y%m%d}"
    await db.execute(f"ALTER TABLE meter_telemetry_history DETACH PARTITION {partition}")
    found = await ask(client, "/v1/analytics/series/meters/D", query)
    bounds = f"FOR VALUES FROM ('{START:%F} 00:00+00') TO ('{START + timedelta(days=1):%F} 00:00+00')"
    await db.execute(f"ALTER TABLE meter_telemetry_history ATTACH PARTITION {partition} {bounds}")
    assert [column["from"] for column in found["series"][0]["columns"]] == [
        format_timestamp(START + timedelta(days=n)) for n in range(1, DAYS)
    ]


@pytest.mark.parametrize("kind", KIND_OF)
async def test_year_is_read_from_summaries_by_the_key(kind: str, database_url: str, db: Connection) -> None:
    own, end = KIND_OF[kind], datetime.now(UTC)
    start = end - timedelta(days=365)
    months = sorted({f"{start + timedelta(days=n):%Y-%m-01}" for n in range(366)})
    for month in months:
        await db.execute(f"SELECT ensure_quarter_partition('{own.quarter_table}', '{month}')")
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    sql = "EXPLAIN (COSTS OFF) " + summaries_sql(own, own.measures, Period(start, end))
    rows = await as_api.fetch(sql, "D", start, 1_000_000, start, end, [], 9_000)
    await as_api.close()
    scans = [row[0].strip() for row in rows if " Scan " in row[0]]
    assert not [line for line in scans if line.startswith(("->  Seq Scan", "->  Bitmap"))]
    by_key = [line for line in scans if f" on {own.quarter_table}_2" in line]
    assert (len(by_key), {line.split(" using ")[0] for line in by_key}) == (len(months), {"->  Index Scan"})
    assert not [line for line in scans if own.history_table in line]
