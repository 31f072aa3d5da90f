"""The keeper notices days of the history that are attached after they were closed."""

from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from bridge.keeper.attached import attached_days
from bridge.keeper.quarters import Quarters
from bridge.store.postgres import PostgresStore
from tests.keepers import summarize
from tests.quarters import assert_right
from tests.readings import minutes, now_minute

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NOON = now_minute().replace(hour=12, minute=0) - timedelta(days=2)
DAY = f"vehicle_telemetry_history_{NOON:%Y%m%d}"
DETACH = f"ALTER TABLE vehicle_telemetry_history DETACH PARTITION {DAY}"
ATTACH = (
    f"ALTER TABLE vehicle_telemetry_history ATTACH PARTITION {DAY} "
    f"FOR VALUES FROM ('{NOON:%F} 00:00+00') TO ('{NOON + timedelta(days=1):%F} 00:00+00')"
)
MARKS = "SELECT count(*) FROM vehicle_quarter_dirty"


@pytest.fixture
async def day(database_url: str, db: Db) -> None:
    store = PostgresStore(database_url)
    await store.write([*minutes("EV_1", 100, NOON), *minutes("EV_2", 100, NOON)])
    await store.close()


async def test_day_that_was_closed_while_detached_is_summarized_when_attached(day: None, db: Db) -> None:
    await db.execute(DETACH)
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter") == 0
    await db.execute(ATTACH)
    await attached_days.run(db)
    assert await db.fetchval(MARKS) == 2 * 96
    await summarize(db)
    assert (await db.fetchval(MARKS), await db.fetchval("SELECT sum(readings) FROM vehicle_quarter")) == (0, 200)
    await assert_right(db)


async def test_mark_that_was_cleaned_while_detached_is_made_again(day: None, database_url: str, db: Db) -> None:
    await summarize(db)
    store = PostgresStore(database_url)
    await store.write(list(minutes("EV_1", 1, NOON + timedelta(seconds=30))))
    await store.close()
    await db.execute(DETACH)
    await summarize(db)
    assert await db.fetchval(MARKS) == 0
    await db.execute(ATTACH)
    await summarize(db)
    assert await db.fetchval("SELECT sum(readings) FROM vehicle_quarter") == 201


async def test_days_that_stay_attached_are_not_marked(day: None, db: Db) -> None:
    await summarize(db)
    quarters = Quarters(0.0, 5.0)
    await quarters.run(db)
    await attached_days.run(db)
    assert await db.fetchval(MARKS) == 0
    assert await db.fetchval("SELECT count(*) FROM quarter_day WHERE kind = 'vehicle'") >= 1
