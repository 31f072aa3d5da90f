"""The simulator's own computation of live rows agrees with the store, and detects every other value."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from bridge.contract import KINDS, VEHICLE, Kind
from bridge.delivery import Kept
from bridge.reading import Reading, reading
from bridge.store.postgres import FEW, PostgresStore
from simulator.database import stale_live
from tests.readings import SEED_TIME

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(autouse=True, params=[0, FEW], ids=["many", "few"])
def most_are_few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use both methods of storing readings."""
    monkeypatch.setattr("bridge.store.postgres.FEW", request.param)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(database_url, command_timeout_s=10)
    yield opened
    await opened.close()


def some_reading(source: random.Random, kind: Kind, device: str, minute: int) -> Reading:
    """A reading of some measures, one at least."""
    chosen = source.sample(kind.measures, source.randint(1, 3))
    values = {measure.column: round(source.uniform(1, 8), 2) for measure in chosen}
    extra = {"n": minute} if source.random() < 0.3 else None
    return reading(kind, device, SEED_TIME + timedelta(minutes=minute), values, extra)


@pytest.mark.parametrize("seed", range(3))
async def test_live_rows_of_any_order_of_batches_are_as_reckoned(store: PostgresStore, db: Db, seed: int) -> None:
    source = random.Random(seed)
    identities = [(kind, f"D_{n}", minute) for kind in KINDS for n in range(10) for minute in range(30)]
    readings = [some_reading(source, kind, device, minute) for kind, device, minute in identities]
    # Nearly in the order of time: some late by a few batches.
    readings.sort(key=lambda one: one.timestamp + timedelta(minutes=source.choice((0, 0, 0, 3, 9))))
    while readings:
        size = source.randint(1, 60)
        batch, readings = readings[:size], readings[size:]
        assert set(await store.write(batch)) == {Kept.STORED}
    devices = [f"D_{n}" for n in range(10)]
    for kind in KINDS:
        assert await stale_live(db, kind, devices) == []
        for column in ("ts", "extra", *(measure.column for measure in kind.measures)):
            altered = db.transaction()
            await altered.start()
            await _alter(db, kind, column)
            assert await stale_live(db, kind, devices) == ["D_3"]
            await altered.rollback()


async def _alter(db: Db, kind: Kind, column: str) -> None:
    other = {"ts": "ts - interval '1 second'", "extra": """'{"other": 1}'"""}.get(column, f"coalesce({column}, 0) + 1")
    await db.execute(f"UPDATE {kind.live_table} SET {column} = {other} WHERE {kind.id_column} = 'D_3'")


async def test_late_reading_only_adds_the_measures_that_the_live_row_lacks(store: PostgresStore, db: Db) -> None:
    newest = reading(VEHICLE, "D_1", SEED_TIME, {"soc": 50.0})
    late = reading(VEHICLE, "D_1", SEED_TIME - timedelta(minutes=5), {"soc": 40.0, "battery_temp": 20.0})
    for one in (newest, late):
        assert await store.write([one]) == [Kept.STORED]
    live = await db.fetchrow("SELECT ts, soc, battery_temp FROM vehicle_live_status")
    assert tuple(live or ()) == (SEED_TIME, 50.0, 20.0)
    assert await stale_live(db, VEHICLE, ["D_1"]) == []
    for wrong in ("battery_temp = NULL", "battery_temp = 21", "soc = 40"):
        altered = db.transaction()
        await altered.start()
        await db.execute(f"UPDATE vehicle_live_status SET {wrong}")
        assert await stale_live(db, VEHICLE, ["D_1"]) == ["D_1"]
        await altered.rollback()
