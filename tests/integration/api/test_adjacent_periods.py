"""Figures of adjacent periods add up, for devices that declare no interval and change how often they send."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import httpx
import pytest

from api import group_figures
from api.database import SESSION
from api.energy.units import units_of
from bridge.contract import METER, VEHICLE, Kind
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Connection
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=6)
DAYS = 4
ENERGY = {VEHICLE: "kwh_delivered_dc", METER: "kwh_consumed_ac"}


async def store(database_url: str, readings: list[Reading]) -> None:
    own = PostgresStore(database_url)
    await own.write(readings)
    await own.close()


def changing(random_: random.Random, kind: Kind, name: str) -> Iterator[Reading]:
    """A device that reports at one rate, is silent, and goes on at another one."""
    at = DAY + timedelta(hours=random_.uniform(0, 20))
    while at < DAY + timedelta(days=DAYS):
        step = timedelta(seconds=random_.choice([20, 60, 60, 300, 900, 3600, 30_000]))
        for _ in range(random_.randrange(1, 200)):
            yield reading(kind, name, at, {ENERGY[kind]: random_.choice([0.001, 0.25, 1.0])})
            at += step
        at += timedelta(seconds=random_.choice([0, 100, 4_000, 50_000, 90_000]))


def jittering(random_: random.Random, name: str) -> Iterator[Reading]:
    """A meter whose register falls a little for up to two hours, now and then."""
    at, counter, fallen = DAY + timedelta(hours=random_.uniform(0, 20)), 1000.0, 0
    while at < DAY + timedelta(days=DAYS):
        counter += random_.choice([0.0, 0.001, 0.25])
        fallen = fallen - 1 if fallen else random_.choice([0] * 20 + [random_.randrange(1, 8)])
        yield reading(METER, name, at, {"kwh_import_register": counter - (0.04 if fallen else 0)})
        at += timedelta(seconds=900)


async def energy(client: httpx.AsyncClient, edges: list[datetime], **parameters: str) -> tuple[int, float]:
    """The energy in units, and the covered time in seconds, of a period."""
    period = {"from": format_timestamp(edges[0]), "to": format_timestamp(edges[-1])}
    answer = await client.get("/v1/analytics/energy", params=parameters | period)
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    units = sum(units_of(item["kwhIn"] or 0.0) for item in items)
    return units, sum(
        item["coverage"] * (datetime.fromisoformat(item["to"]) - datetime.fromisoformat(item["from"])).total_seconds()
        for item in items
    )


async def test_reading_after_a_gap_is_counted_once_although_the_device_changes_its_interval(
    client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    """A meter sends each quarter hour, is silent from 23:00, and goes on after midnight, each minute."""
    quarters = [DAY + timedelta(minutes=15 * n) for n in range(1, 93)]
    minutes = [DAY + timedelta(hours=24, minutes=1 + n) for n in range(600)]
    values = [
        *((at, 0.001) for at in quarters),
        (DAY + timedelta(hours=24, minutes=1), 4.0),
        *((at, 0.001) for at in minutes),
    ]
    await store(database_url, [reading(METER, "M", at, {"kwh_consumed_ac": kwh}) for at, kwh in values])
    edges = [DAY + timedelta(days=n) for n in range(3)]
    for _ in range(2):
        days = [await energy(client, list(pair), of="meters", id="M") for pair in pairwise(edges)]
        both = await energy(client, edges, of="meters", id="M")
        # On its own day the device reports each minute: 4 kWh flowed in the minute before 00:01.
        assert days[0][0] == 92 * 10**9
        assert days[1][0] == 4 * 10**12 + 599 * 10**9
        assert both[0] == days[0][0] + days[1][0]
        assert both[1] == pytest.approx(days[0][1] + days[1][1], abs=1e-6)
        await summarize(db)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_folded", [False, True])
async def test_figures_of_adjacent_periods_add_up(
    is_folded: bool,
    seed: int,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    db: Connection,
) -> None:
    monkeypatch.setattr(group_figures, "_FOLDED_FROM", 0 if is_folded else 1e9)
    random_ = random.Random(seed)
    names = [(kind, f"{kind.name}_{n}") for kind in (VEHICLE, METER) for n in range(4)]
    for kind, name in names:
        own = jittering(random_, name) if name == "meter_3" else changing(random_, kind, name)
        await store(database_url, list(own))
    last = (DAYS + 1) * 86_400
    for is_summarized in (False, True):
        if is_summarized:
            await summarize(db)
        for kind, name in names:
            cuts = random_.sample(range(0, last, random_.choice([1, 900, 3_600])), 5)
            edges = [DAY + timedelta(seconds=at) for at in sorted({0, *cuts, last})]
            bucket = random_.choice(["total", "hour", "15m"])
            parts = [
                await energy(client, list(pair), of=kind.plural, id=name, bucket=bucket) for pair in pairwise(edges)
            ]
            whole = await energy(client, edges, of=kind.plural, id=name)
            assert sum(units for units, _ in parts) == whole[0], (name, edges)
            assert sum(covered for _, covered in parts) == pytest.approx(whole[1], abs=1e-4), (name, edges)


@pytest.mark.parametrize("seed", range(2))
async def test_views_have_the_same_intervals(
    seed: int, client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    await store(database_url, list(changing(random_, METER, "M")))
    analyst = await asyncpg.connect(database_url, server_settings=SESSION)
    try:
        for day in range(DAYS):
            edges = [DAY + timedelta(days=day), DAY + timedelta(days=day + 1)]
            rows = await analyst.fetch("SELECT * FROM energy_by_quarter('meter', 'M', $1, $2)", *edges)
            units, covered = await energy(client, edges, of="meters", id="M", bucket="15m")
            assert sum(units_of(row["kwh"]) for row in rows) == units
            assert sum(row["covered_s"] for row in rows) == pytest.approx(covered, abs=1e-3)
    finally:
        await analyst.close()
