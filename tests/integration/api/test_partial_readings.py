"""Queries of devices that do not report every measure."""

from datetime import timedelta

import httpx
import pytest

from bridge.contract import VEHICLE
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading, reading
from tests.readings import now_minute

pytestmark = pytest.mark.anyio


def partial(minutes_ago: int, **values: float) -> Reading:
    return reading(VEHICLE, "EV_1", now_minute() - timedelta(minutes=minutes_ago), values)


async def performance(client: httpx.AsyncClient, *readings: Reading) -> dict[str, object]:
    assert (await client.post("/v1/ingest", content=encode_many(readings))).status_code == 201
    answer = await client.get("/v1/analytics/performance/EV_1")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_mean_temperature_rests_on_the_readings_that_have_one(client: httpx.AsyncClient) -> None:
    found = await performance(
        client,
        partial(4, soc=50),
        partial(3, battery_temp=20, kwh_delivered_dc=1),
        partial(2, power_kw=7.5),
        partial(1, battery_temp=40),
    )
    assert (found["avgBatteryTemp"], found["totalKwhDeliveredDc"], found["readings"]) == (30, 1, 4)


async def test_one_temperature_among_readings_without_one_is_the_mean(client: httpx.AsyncClient) -> None:
    assert (await performance(client, partial(3, soc=50), partial(2, battery_temp=21.5)))["avgBatteryTemp"] == 21.5


async def test_what_no_reading_has_is_null_and_not_zero(client: httpx.AsyncClient) -> None:
    found = await performance(client, partial(2, soc=50), partial(1, power_kw=7.5))
    assert (found["avgBatteryTemp"], found["totalKwhDeliveredDc"], found["efficiency"]) == (None, None, None)
