"""The behaviour that the layers give to every route, against the real process."""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from starlette.responses import Response

from api import keys
from api.app import application
from api.routing import Endpoint, RouteTable
from bridge.contract import VEHICLE
from tests.integration.api.server import Api, Connection, assert_problem
from tests.integration.api.slow_reader import SlowReader
from tests.readings import now_minute
from tests.until import until

pytestmark = pytest.mark.anyio

VEHICLES = "/v1/devices/vehicles"
PERFORMANCE = f"/v1/analytics/performance/{VEHICLE.example_id}"


def endpoints(method: str) -> list[tuple[str, Endpoint]]:
    """Every route with this method: its path with the parameters filled in, and what it declares."""
    table = RouteTable(application(Response()).routes)
    return [(_filled(endpoint.path), endpoint) for name, endpoint in table.endpoints() if name == method]


def _filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "X_1", path.replace("{from}", "2026-02-10T10:15:00Z"))


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "POST", "DELETE"])
async def test_every_route_refuses_parameters_that_it_does_not_declare(api: Api, db: Connection, method: str) -> None:
    _, token = await keys.create(db, "test", keys.Grant(("admin",)))
    async with api.client(token) as client:
        await _each_refuses_nonsense(client, method)


async def _each_refuses_nonsense(client: httpx.AsyncClient, method: str) -> None:
    for path, endpoint in endpoints(method):
        problem = assert_problem(await client.request(method, f"{path}?nonsense=1"), 422, "nonsense: unknown parameter")
        assert [error["field"] for error in problem["errors"]] == ["nonsense"]
        for known in endpoint.query:
            assert known in problem["detail"]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("From", "from"), ("start", "from"), ("form", "from"), ("TO", "to"), ("end", "to")],
)
async def test_unknown_parameter_gets_the_nearest_known_one(
    client: httpx.AsyncClient, asked: str, nearest: str
) -> None:
    query = {asked: "2026-02-10T00:00:00Z"}
    answer = await client.get("/v1/analytics/performance/EV_1", params=query)
    assert_problem(answer, 422, f"{asked}: unknown parameter; did you mean {nearest}? (known: asOf, from, to)")


async def test_unknown_parameter_like_no_other_gets_the_known_ones_only(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/analytics/performance/EV_1", params={"tz": "Mars/Olympus"})
    assert_problem(answer, 422, "tz: unknown parameter (known: asOf, from, to)")


async def test_parameter_that_occurs_twice_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/live/vehicles?limit=1&limit=2")
    assert_problem(answer, 422, "limit: occurs more than once")


async def test_parameter_of_a_path_that_there_is_not_is_still_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/nothing?nonsense=1"), 404)


async def test_head_is_answered_where_get_is_with_the_same_headers(client: httpx.AsyncClient) -> None:
    await client.post("/v1/ingest", json={**VEHICLE.example, "timestamp": now_minute().isoformat()})
    for path, _ in endpoints("GET"):
        seen = path.replace("X_1", VEHICLE.example_id)
        async with client.stream("GET", seen) as asked:  # the live stream does not end
            headed = await client.head(seen)
        assert headed.status_code == asked.status_code
        assert headed.content == b""
        has_times = seen in ("/metrics", PERFORMANCE, "/v1/quality") or seen.startswith("/v1/live")
        changing = {"date", "content-length"} if has_times else {"date"}
        assert _without(headed.headers, changing) == _without(asked.headers, changing), seen


async def test_head_of_a_list_as_csv_is_answered_without_making_it(client: httpx.AsyncClient) -> None:
    headed = await client.head(VEHICLES, headers={"Accept": "text/csv"})
    assert headed.status_code == 200
    assert headed.headers["content-type"].startswith("text/csv")
    assert (await client.get("/healthz")).status_code == 200  # on the same connection


def _without(headers: httpx.Headers, names: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names and name != "transfer-encoding"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/live/vehicles", "GET, HEAD"),
        ("PATCH", "/v1/devices/vehicles", "GET, HEAD, POST"),
        ("GET", "/v1/devices/vehicles/X/y", None),
        ("GET", "/v1/ingest", "POST"),
        ("HEAD", "/v1/ingest", "POST"),
        ("OPTIONS", "/v1/meters/M_1/assignments/2026-02-10T10:15:00Z", "DELETE, PATCH, PUT"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
async def test_other_methods_are_405_with_those_that_there_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: str | None
) -> None:
    answer = await client.request(method, path)
    assert_problem(answer, 404 if allowed is None else 405)
    assert answer.headers.get("allow") == allowed


@pytest.mark.parametrize("path", ["/v1/live/vehicles/", "/docs/", "//v1/live/vehicles", "/v1/live/vehicles%0A"])
async def test_nothing_redirects(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Host": "evil.example"})
    assert_problem(answer, 404)
    assert "location" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "[", "a b", ""])
async def test_host_header_changes_no_answer(client: httpx.AsyncClient, host: str) -> None:
    now = now_minute()
    at = [(now - timedelta(minutes=n)).isoformat() for n in range(3)]
    await client.post("/v1/ingest", json=[{**VEHICLE.example, "timestamp": each} for each in at])
    path = f"/v1/history/vehicles/{VEHICLE.example_id}"
    answer = await client.get(path, params={"limit": 1, "from": at[2]}, headers={"Host": host})
    assert answer.status_code == 200
    assert answer.links["next"]["url"].startswith("?limit=1&from=")
    assert "evil" not in str(answer.headers) + answer.text


ROWS = 40_000


@pytest.fixture
async def impatient(start_api: Callable[..., Api], token: str, db: Connection) -> Api:
    """An API with a time limit of one second, and many devices with long names: 9 MB of CSV."""
    await db.execute(
        "INSERT INTO device (kind, id, name) SELECT 'vehicle', 'EV_' || n, repeat('x', 200) "
        f"FROM generate_series(1, {ROWS}) AS n"
    )
    return start_api(http_request_timeout_s=1)


async def test_download_may_take_longer_than_the_time_limit(impatient: Api, token: str) -> None:
    began = time.monotonic()
    received = await asyncio.to_thread(SlowReader(impatient, token, VEHICLES).read, 0.1)
    assert time.monotonic() - began > 2
    assert received.endswith(b"0\r\n\r\n")
    assert received.count(b"xxx\r\n") + received.count(b"xxx,") >= ROWS


async def test_reader_of_a_download_that_takes_nothing_is_cut(impatient: Api, token: str) -> None:
    reader = SlowReader(impatient, token, VEHICLES)
    await until(lambda: "request timed out" in impatient.log)
    received = await asyncio.to_thread(reader.read, 0)
    assert not received.endswith(b"0\r\n\r\n")


async def test_request_times_are_measured_by_route(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await client.get(f"/v1/live/vehicles/EV_{number}")
    await client.get("/v1/nothing/that/a/client/invents")
    text = (await client.get("/metrics")).text
    found = re.findall(r'^fleet_http_request_seconds_count\{method="(\w+)",route="([^"]+)"\} (\d+)', text, re.MULTILINE)
    counts = {(method, route): int(count) for method, route, count in found}
    assert counts["GET", "/v1/live/vehicles/{vehicleId}"] >= 3
    assert ("any", "unmatched") in counts
    assert "invents" not in text


async def test_documentation_needs_no_other_host_and_no_inline_code(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs")
    used = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css"} <= set(used)
    for address in [*used, "openapi.json"]:
        assert not re.match(r"[a-z]+:|/", address), "not relative to the page"
        found = await client.get(answer.url.join(address))
        assert found.status_code == 200
        assert len(found.content) > 100
    assert not re.search(r"<script>|<style|style=|\son\w+=", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_documentation_is_public_and_may_be_kept(api: Api) -> None:
    async with api.client() as anyone:
        script = await anyone.get("/docs/swagger-ui-bundle.js")
    assert script.headers["cache-control"] == "max-age=3600"
    assert script.headers["content-type"].startswith("text/javascript")
