"""The energy of many devices, folded in the database, is that of the devices folded one by one."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from api import group_figures
from api.database import SESSION, Pool, connection
from api.energy import calendar
from api.energy.calendar import BucketName
from api.fleet import Buckets, fold
from api.group_figures import Row, rows_of
from api.groups import Group, Part
from api.read_limit import closed
from bridge.contract import KINDS, METER, VEHICLE
from tests.integration.api.server import Connection
from tests.integration.api.test_summaries import DEVICES, LENGTH, START, ZONES, fill, name_of
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

BUCKETS: tuple[BucketName, ...] = ("15m", "hour", "day", "total")


def edges_of(random_: random.Random) -> list:  # type: ignore[type-arg]
    start = START + timedelta(seconds=random_.choice([900 * random_.randrange(100), random_.uniform(0, 90_000)]))
    length = random_.choice([timedelta(days=1), timedelta(hours=random_.uniform(0.1, 20)), LENGTH, timedelta(days=4)])
    return calendar.edges(start, start + length, random_.choice(BUCKETS), ZoneInfo(random_.choice(ZONES)))


def known(row: Row) -> Row:
    """Without the number of devices of which something is known: a fold only says whether there is one."""
    ac, dc = (own._replace(measured=bool(own.measured)) for own in (row.ac, row.dc))
    return row._replace(ac=ac, dc=dc)


async def compare(pool: Pool, monkeypatch: pytest.MonkeyPatch, random_: random.Random, count: int) -> None:
    everything = [Part(kind, name_of(kind, sort)) for kind, sort in DEVICES]
    groups = [Group("", everything)]
    groups += [Group(name_of(VEHICLE, sort), [Part(VEHICLE, name_of(VEHICLE, sort))]) for _, sort in DEVICES[:6]]
    for _ in range(count):
        chosen = [groups[0]] if random_.random() < 0.5 else groups[1:]
        async with connection(pool) as c:
            buckets = Buckets(edges_of(random_), await closed(c), datetime.now(UTC))
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
    await fill(database_url, db, random_)
    if seed in (1, 2):
        await db.execute(
            "INSERT INTO device (kind, id, interval_s) SELECT k, k || '_' || s, 60 FROM unnest($1::text[]) k, "
            "unnest($2::text[]) s ON CONFLICT (kind, id) DO UPDATE SET interval_s = 60",
            [kind.name for kind in KINDS],
            sorted({sort for _, sort in DEVICES}),
        )
    async with asyncpg.create_pool(database_url, server_settings=SESSION, min_size=0, max_size=4) as pool:
        await compare(pool, monkeypatch, random_, 15)
        await summarize(db)
        await compare(pool, monkeypatch, random_, 30)


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
        folded = await fold(as_api, METER, keys, Buckets(edges, await closed(as_api), datetime.now(UTC)), [])
    finally:
        await as_api.close()
    assert {"meter_none"} <= set(keys) - set(folded.others)
