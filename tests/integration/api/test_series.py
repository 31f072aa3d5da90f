"""GET /v1/analytics/series/... through HTTP: few columns, and no peak is lost."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from api.database import SESSION
from api.period import Period
from api.series_sql import readings_sql
from bridge.contract import KINDS, METER, VEHICLE, Kind
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading, format_timestamp, reading
from tests.integration.api.server import assert_problem
from tests.integration.api.test_figures import DAY

pytestmark = pytest.mark.anyio

VEHICLE_SERIES = "/v1/analytics/series/vehicles/V"
END = DAY + timedelta(days=1)
THAT_DAY = {"from": format_timestamp(DAY), "to": format_timestamp(END)}


async def store(client: httpx.AsyncClient, readings: Sequence[Reading]) -> None:
    assert (await client.post("/v1/ingest", content=encode_many(readings))).status_code == 201


async def ask(client: httpx.AsyncClient, path: str = VEHICLE_SERIES, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=THAT_DAY | query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def power(values: Sequence[float]) -> list[Reading]:
    return [reading(VEHICLE, "V", DAY + timedelta(seconds=37 * n), {"power_kw": v}) for n, v in enumerate(values)]


@pytest.mark.parametrize("points", [1, 7, 600, 5_000])
async def test_columns_have_first_last_least_and_greatest(points: int, client: httpx.AsyncClient) -> None:
    values = [random.Random(7).uniform(-50, 150) * (n % 3) for n in range(2_000)]
    readings = power(values)
    await store(client, readings)
    found = await ask(client, measure="powerKw", points=points)
    (one,) = found["series"]
    assert (found["from"], found["to"], one["measure"], one["unit"]) == (*THAT_DAY.values(), "powerKw", "kW")
    assert len(one["columns"]) <= points
    assert sum(column["count"] for column in one["columns"]) == len(values)
    times = [DAY + timedelta(seconds=37 * n) for n in range(len(values))]
    for column in one["columns"]:
        start, end = (datetime.fromisoformat(column[name]) for name in ("from", "to"))
        own = [v for t, v in zip(times, values, strict=True) if start <= t < end]
        assert [column[name] for name in ("count", "first", "last", "min", "max")] == [
            *(len(own), own[0], own[-1], min(own), max(own))
        ]


async def test_single_peak_of_a_day_is_kept(client: httpx.AsyncClient) -> None:
    values = [1.0] * 2_000
    values[1234] = 140.0
    await store(client, power(values))
    (one,) = (await ask(client, measure="powerKw", points=10))["series"]
    assert [column["max"] for column in one["columns"]].count(140.0) == 1


async def test_last_column_is_cut_to_the_period(client: httpx.AsyncClient) -> None:
    end = DAY + timedelta(microseconds=10)
    await store(client, [reading(VEHICLE, "V", DAY + timedelta(microseconds=9), {"soc": 50.0})])
    (one,) = (await ask(client, measure="soc", points=3, to=format_timestamp(end)))["series"]
    (column,) = one["columns"]
    assert (column["from"], column["to"]) == (
        format_timestamp(DAY + timedelta(microseconds=8)),
        format_timestamp(end),
    )


async def test_measures_have_columns_of_their_own(client: httpx.AsyncClient) -> None:
    await store(client, [reading(VEHICLE, "V", DAY, {"soc": 50.0})])
    await store(client, [reading(VEHICLE, "V", END - timedelta(seconds=1), {"power_kw": 3.0})])
    listed = await ask(client, measure=["powerKw", "soc", "batteryTemp"], points=24)
    found = await ask(client, measure="powerKw,soc,batteryTemp", points=24)
    assert found["series"] == listed["series"]
    columns = {each["measure"]: [column["first"] for column in each["columns"]] for each in found["series"]}
    assert columns == {"soc": [50.0], "batteryTemp": [], "powerKw": [3.0]}


async def test_meter_has_its_own_measures(client: httpx.AsyncClient) -> None:
    await store(client, [reading(METER, "M", DAY, {"voltage": 231.0})])
    found = await ask(client, "/v1/analytics/series/meters/M", measure="voltage")
    assert [column["last"] for column in found["series"][0]["columns"]] == [231.0]
    refused = await client.get("/v1/analytics/series/meters/M", params={"measure": "soc"})
    assert_problem(refused, 422, "measure[0]: Input should be 'kwhConsumedAc'")


async def test_period_to_come_is_empty_and_unknown_device_is_not_found(client: httpx.AsyncClient) -> None:
    await store(client, [reading(VEHICLE, "V", DAY, {"soc": 50.0})])
    ahead = {"from": "2099-01-01T00:00:00Z", "to": "2099-01-02T00:00:00Z"}
    assert [each["columns"] for each in (await ask(client, measure="soc", **ahead))["series"]] == [[]]
    answer = await client.get("/v1/analytics/series/vehicles/V404", params={"measure": "soc"})
    assert_problem(answer, 404, "no reading of vehicle V404 was ever stored")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "measure: Field required"),
        ({"measure": "speed"}, "measure[0]: Input should be"),
        ({"measure": "soc", "points": "0"}, "points: "),
        ({"measure": "soc", "points": "5001"}, "points: "),
    ],
)
async def test_wrong_question_is_refused(query: dict[str, str], reason: str, client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(VEHICLE_SERIES, params=query), 422, reason)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_series_is_read_by_the_key(kind: Kind, client: httpx.AsyncClient, database_url: str) -> None:
    await store(client, [reading(kind, "D", DAY, {kind.measures[0].column: 1.0})])
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    sql = "EXPLAIN (COSTS OFF) " + readings_sql(kind, kind.measures, Period(DAY, END))
    plan = "\n".join(row[0] for row in await as_api.fetch(sql, "D", DAY, 1_000_000, [DAY], [END]))
    await as_api.close()
    assert "Seq Scan" not in plan
    assert "ts >= s.since" in plan.partition("Index Cond: ")[2].partition("\n")[0]
    assert f"{kind.history_table}_{DAY:%Y%m%d}" in plan
