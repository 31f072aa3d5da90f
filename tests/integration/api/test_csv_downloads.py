"""Long lists as CSV: complete beyond a page, and read without a connection while the client does not read."""

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api.streaming import CSV_PAGE
from bridge.contract import VEHICLE
from bridge.formats.contract_json import encode_many
from bridge.reading import format_timestamp, reading
from tests.integration.api.server import Api, Connection
from tests.integration.api.slow_reader import SlowReader
from tests.integration.api.test_figures import DAY
from tests.proxy import proxy_before
from tests.until import until

pytestmark = pytest.mark.anyio

ROWS = 40_000
END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
QUARTERS = 90 * 96
LONG = {"from": format_timestamp(END - timedelta(days=90)), "to": format_timestamp(END)}
NOTE = f'\'{{"note": "{"x" * 200}"}}\''
# Each list is several MB, more than the buffers of two sockets.
LISTS = {
    "/v1/live/vehicles": (
        f"INSERT INTO vehicle_live_status (vehicle_id, ts, received_at, soc, extra) "
        f"SELECT 'EV_' || n, now(), now(), 50, {NOTE} "
        f"FROM generate_series(1, {ROWS}) AS n",
        ROWS,
    ),
    f"/v1/history/vehicles/EV_1?from={format_timestamp(DAY)}": (
        f"INSERT INTO vehicle_telemetry_history (vehicle_id, ts, received_at, soc, extra) "
        f"SELECT 'EV_1', '{DAY.isoformat()}'::timestamptz + n * interval '1 s', now(), 50, {NOTE} "
        f"FROM generate_series(1, {ROWS}) AS n",
        ROWS + 1,
    ),
    "/v1/devices/vehicles": (
        "INSERT INTO device (kind, id, name) SELECT 'vehicle', 'EV_' || n, repeat('x', 200) "
        f"FROM generate_series(1, {ROWS}) AS n",
        ROWS,
    ),
    "/v1/assignments": (
        "INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id) "
        f"SELECT repeat('M', 58) || n, now(), repeat('V', 64) FROM generate_series(1, {ROWS}) AS n",
        ROWS,
    ),
    f"/v1/analytics/energy?of=meters&bucket=15m&from={LONG['from']}&to={LONG['to']}": (
        "INSERT INTO device (kind, id) SELECT 'meter', 'M_' || n FROM generate_series(1, 9) AS n",
        9 * QUARTERS,
    ),
}


@pytest.fixture
async def path(request: pytest.FixtureRequest, client: httpx.AsyncClient, db: Connection) -> str:
    """A list, filled."""
    first = reading(VEHICLE, "EV_1", DAY, {"soc": 50.0})
    if "history" in request.param:  # The partition of the day is made by the first reading.
        assert (await client.post("/v1/ingest", content=encode_many([first]))).status_code == 201
    await db.execute(LISTS[request.param][0])
    return str(request.param)


@pytest.mark.parametrize("path", LISTS, indirect=True, ids=lambda path: path.split("?")[0])
async def test_client_that_does_not_read_holds_no_connection(
    path: str, start_api: Callable[..., Api], token: str
) -> None:
    """The pool has one connection: while the list is half sent, another question is answered."""
    api = start_api(query_pool_size=1)
    reader = SlowReader(api, token, path)
    begun = await asyncio.to_thread(reader.begin)
    async with api.client(token) as other:
        assert (await other.get("/v1/live/meters")).json()["items"] == []
        metrics = (await other.get("/metrics")).text
    assert f'route="{path.split("?")[0].replace("EV_1", "{vehicleId}")}"' not in metrics, "the list is sent already"
    received = begun + await asyncio.to_thread(reader.read, 0)
    assert received.endswith(b"0\r\n\r\n")
    rows = list(csv.reader(io.StringIO(_body(received).decode(), newline=""), strict=True))[1:]
    assert len(rows) == LISTS[path][1] > 2 * CSV_PAGE
    assert len(set(map(tuple, rows))) == len(rows)


def _body(response: bytes) -> bytes:
    """The body of a response in chunks (RFC 9112, section 7.1)."""
    _, _, rest = response.partition(b"\r\n\r\n")
    parts: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return b"".join(parts)
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


async def test_series_of_more_columns_than_a_page_is_whole(client: httpx.AsyncClient) -> None:
    readings = [reading(VEHICLE, "V", DAY + timedelta(seconds=20 * n), {"soc": n % 100}) for n in range(4_000)]
    assert (await client.post("/v1/ingest", content=encode_many(readings))).status_code == 201
    path = "/v1/analytics/series/vehicles/V"
    query = {"from": format_timestamp(DAY), "to": format_timestamp(DAY + timedelta(days=1)), "measure": "soc"}
    answer = await client.get(path, params=query | {"points": "5000"}, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) > 2 * CSV_PAGE
    assert sum(int(row["count"]) for row in rows) == 4_000
    assert [row["from"] for row in rows] == sorted({row["from"] for row in rows})


async def test_list_that_cannot_be_completed_is_cut(api: Api, client: httpx.AsyncClient) -> None:
    """The second vehicle has more meters than an item may be made of: a response that is complete would hide it."""
    rows = [{"meterId": f"M_{n}", "vehicleId": "V_2", "from": LONG["from"]} for n in range(12)]
    rows.append({"meterId": "M_99", "vehicleId": "V_1", "from": LONG["from"]})
    assert (await client.post("/v1/assignments", json=rows)).is_success
    query = LONG | {"of": "vehicles", "bucket": "15m"}
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/v1/analytics/energy", params=query, headers={"Accept": "text/csv"})
    await until(lambda: "response aborted" in api.log)
    assert "Traceback" not in api.log


@pytest.mark.parametrize("path", ["/v1/devices/vehicles"], indirect=True)
async def test_list_whose_database_becomes_unavailable_is_cut(
    path: str, start_api: Callable[..., Api], login_url: str, token: str
) -> None:
    async with proxy_before(login_url) as (proxy, through):
        api = await asyncio.to_thread(start_api, database_url=through)
        reader = SlowReader(api, token, path)
        begun = await asyncio.to_thread(reader.begin)
        proxy.refusing = True
        proxy.cut()
        received = begun + await asyncio.to_thread(reader.read, 0)
        assert begun.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not received.endswith(b"0\r\n\r\n")
        assert "database unavailable" in api.log
        assert "Traceback" not in api.log
