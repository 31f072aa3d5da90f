"""The public recording of a household, answered through energy and series, from readings and from summaries."""

import math
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bridge.formats.contract_json import encode_many
from bridge.reading import DeviceId, format_timestamp
from simulator.converters import shift, uci
from tests.integration.api.server import Connection
from tests.integration.api.test_figures import at
from tests.keepers import summarize
from tests.recordings import recording

pytestmark = pytest.mark.anyio

LAST = at("00:00")
"""The recording's last reading is moved here."""


@pytest.fixture
async def household(client: httpx.AsyncClient) -> list[Any]:
    readings = shift(uci(recording("uci_household_power_1min.txt"), DeviceId("HOME")), LAST)
    for start in range(0, len(readings), 10_000):
        answer = await client.post("/v1/ingest", content=encode_many(readings[start : start + 10_000]))
        assert answer.status_code == 201, answer.text
    return readings


async def test_recorded_household_has_its_energy_and_its_voltages(
    household: list[Any], client: httpx.AsyncClient, db: Connection
) -> None:
    first = household[0].timestamp - timedelta(minutes=1)
    period = {"from": format_timestamp(first), "to": format_timestamp(LAST)}
    energy = period | {"of": "meters", "id": "HOME", "bucket": "day", "tz": "Europe/Paris"}
    series = period | {"measure": "voltage", "points": "100"}
    before: list[Any] = []
    for _ in range(2):
        days = (await client.get("/v1/analytics/energy", params=energy)).json()["items"]
        assert math.fsum(day["kwhAc"] for day in days) == pytest.approx(1063.8435, abs=5e-5)
        # Two gaps of two minutes: an interval reading covers one minute of three.
        elapsed = (LAST - first).total_seconds()
        (total,) = (await client.get("/v1/analytics/energy", params=energy | {"bucket": "total"})).json()["items"]
        assert total["coverage"] == pytest.approx(1 - 240 / elapsed, abs=1e-9)
        voltages = (await client.get("/v1/analytics/series/meters/HOME", params=series)).json()["series"][0]["columns"]
        assert (min(c["min"] for c in voltages), max(c["max"] for c in voltages)) == (226.32, 251.7)
        assert sum(c["count"] for c in voltages) == len(household) - 1  # the last one is at the end of the period
        assert before in ([], [days, total, voltages])
        before = [days, total, voltages]
        await summarize(db)
