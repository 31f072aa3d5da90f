"""Figures of a year: answered from the keeper's summaries, refused with the reason where there are none."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx
import pytest

from api import keys
from api.problems import Problem
from api.read_limit import ONE_BY_ONE, Allowance
from bridge.contract import METER, VEHICLE
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from local.postgres import Postgres
from tests.databases import new_database
from tests.integration.api.server import Connection, assert_problem, launch
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
CHARGES = [NOW - timedelta(days=days, hours=2) for days in range(0, 500, 45)]
QUESTIONS = {"/v1/sessions": {"vehicle": "V"}, "/v1/analytics/performance/V": {}, "/v1/quality": {}}


class Fleet(NamedTuple):
    """A vehicle and its meter, with a charge every 45 days; no quarter hour is summarized yet."""

    client: httpx.AsyncClient
    db: Connection


def charge(first: datetime) -> Iterator[Reading]:
    for n in range(90):
        charging = 30 <= n < 50
        at = first + timedelta(minutes=n)
        yield reading(VEHICLE, "V", at, {"kwh_delivered_dc": 0.9 * charging})
        yield reading(METER, "M", at, {"kwh_consumed_ac": 1.0 * charging})


@pytest.fixture
async def fleet(postgres: Postgres, template: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """In a database of its own: the keeper would go through the year in the tests after this one, too."""
    url = new_database(postgres, template)
    store = PostgresStore(url)
    await store.write([r for first in CHARGES for r in charge(first)])
    await store.close()
    db = await asyncpg.connect(url)
    await db.execute("INSERT INTO meter_assignment VALUES ('M', $1, 'V')", NOW - timedelta(days=600))
    api = launch(url, tmp_path / "api.log", {})
    _, token = await keys.create(db, "reader", keys.Grant(("read",)))
    async with api.client(token) as client:
        yield Fleet(client, db)
    api.process.stop()
    await db.close()


async def ask(fleet: Fleet, path: str, days: float) -> httpx.Response:
    period = {"from": format_timestamp(NOW - timedelta(days=days)), "to": format_timestamp(NOW)}
    return await fleet.client.get(path, params=QUESTIONS[path] | period)


async def test_long_period_is_answered_when_the_keeper_has_summarized_it(fleet: Fleet) -> None:
    for path in QUESTIONS:
        assert (await ask(fleet, path, 10)).status_code == 200
        assert_problem(await ask(fleet, path, 500), 422, "that the keeper has not summarized")
    await summarize(fleet.db)
    sessions = (await ask(fleet, "/v1/sessions", 500)).json()["items"]
    assert [item["kwhAc"] for item in sessions] == [20.0] * len(CHARGES)
    performance = (await ask(fleet, "/v1/analytics/performance/V", 500)).json()
    assert performance["totalKwhConsumedAc"] == pytest.approx(20 * len(CHARGES), abs=1e-9)
    assert performance["efficiency"] == pytest.approx(0.9, abs=1e-12)
    assert performance["readings"] == 90 * len(CHARGES)
    quality = (await ask(fleet, "/v1/quality", 500)).json()
    assert quality["totals"]["devices"] == 2


async def test_period_beyond_every_limit_is_refused(fleet: Fleet) -> None:
    for path in QUESTIONS:
        assert_problem(await ask(fleet, path, 3_661), 422, "from: the period exceeds 3660 days")
    history = await fleet.client.get("/v1/history/vehicles/V", params={"from": format_timestamp(CHARGES[-1])})
    assert_problem(history, 422, "from: the period exceeds 92 days")


@pytest.mark.parametrize(
    ("allowed", "devices"),
    [
        (Allowance(0.1, 0.0), ONE_BY_ONE.device_days),
        (Allowance(365.0, 0.0), 21),
        (Allowance(365.0, 365.0), 1),
        (Allowance(1.0, 1.0), ONE_BY_ONE.readings),
        (Allowance(1.0, 0.02), ONE_BY_ONE.device_days),
        (Allowance(3_000.0, 500.0), 0),
    ],
)
def test_days_that_are_not_summarized_count_apart(allowed: Allowance, devices: int) -> None:
    assert allowed.devices == devices
    allowed.refuse(devices, ("site", "one site"))
    with pytest.raises(Problem, match="device-days"):
        allowed.refuse(devices + 1, ("site", "one site"))
