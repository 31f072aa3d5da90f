"""The summaries of quarter hours: made once a quarter hour is over, made again for late readings."""

from typing import TypeAlias

import asyncpg
import pytest

from bridge.keeper.quarters import Quarters
from bridge.store.postgres import PostgresStore
from tests.readings import minutes

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_quarter_hours_that_are_over_are_summarized(database_url: str, db: Db) -> None:
    store = PostgresStore(database_url)
    await store.write(list(minutes("EV_1", 100)))
    await store.close()
    quarters = Quarters(0.0, 5.0)
    while await quarters.run(db):
        pass
    found = await db.fetchrow(
        "SELECT sum(readings) AS summarized, (SELECT count(*) FROM vehicle_telemetry_history, quarter_mark "
        "WHERE kind = 'vehicle' AND ts < closed_until) AS readings FROM vehicle_quarter"
    )
    assert found is not None
    assert found["summarized"] == found["readings"] > 80
