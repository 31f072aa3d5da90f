"""Live, history, assignments and analytics against the real process and a real database."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from api.database import SESSION
from api.energy.spans import Span
from api.history import page_sql
from api.measured_sql import Neighbour, Question, Wanted, far_neighbours_sql, readings_sql
from api.period import Period
from bridge.contract import KINDS, VEHICLE, Kind
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading, format_timestamp
from bridge.store.tables import TABLES, Table
from bridge.version import VERSION
from local.postgres import Postgres
from tests.integration.api.server import Connection, assert_problem
from tests.readings import meter, minutes, now_minute, vehicle

pytestmark = pytest.mark.anyio

HOUR = now_minute().replace(minute=0) - timedelta(hours=30)
"""The begin of an hour that has ended."""


async def store(client: httpx.AsyncClient, *readings: Reading) -> None:
    answer = await client.post(
        "/v1/ingest", content=encode_many(readings), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text


async def assign(client: httpx.AsyncClient, meter_id: str, start: datetime, vehicle_id: str | None) -> httpx.Response:
    path = f"/v1/meters/{meter_id}/assignments/{format_timestamp(start)}"
    return await client.put(path, json={"vehicleId": vehicle_id})


async def performance(client: httpx.AsyncClient, vehicle_id: str, start: datetime, end: datetime) -> dict[str, Any]:
    query = {"from": format_timestamp(start), "to": format_timestamp(end)}
    answer = await client.get(f"/v1/analytics/performance/{vehicle_id}", params=query)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def at(minute: float) -> datetime:
    return HOUR + timedelta(minutes=minute)


async def test_live_shows_the_newest_reading(client: httpx.AsyncClient) -> None:
    now = now_minute()
    await store(client, vehicle("EV_1", now, soc=50), vehicle("EV_1", now - timedelta(minutes=1), soc=60))
    live = (await client.get("/v1/live/vehicles/EV_1")).json()
    assert live.pop("receivedAt").endswith("Z")
    assert 0 <= live.pop("ageSeconds") < 120
    assert live == {
        "silent": False,
        "vehicleId": "EV_1",
        "soc": 50.0,
        "kwhDeliveredDc": 4.25,
        "batteryTemp": 38.6,
        **{measure.name: None for measure in VEHICLE.measures if measure.example is None},
        "timestamp": format_timestamp(now),
        "extra": None,
    }


async def test_live_of_a_meter(client: httpx.AsyncClient) -> None:
    await store(client, meter("M_1"))
    live = (await client.get("/v1/live/meters/M_1")).json()
    assert (live["meterId"], live["kwhConsumedAc"], live["voltage"]) == ("M_1", 5.1, 231.5)


@pytest.mark.parametrize("path", ["/v1/live/vehicles/EV_9", "/v1/live/meters/M", "/v1/history/vehicles/EV_9",
                                  "/v1/history/meters/M", "/v1/analytics/performance/EV_9"])  # fmt: skip
async def test_device_never_seen_is_404(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "was ever stored")


@pytest.mark.parametrize(
    "path", ["/v1/analytics/performance/EV_9", "/v1/sessions?vehicle=EV_9", "/v1/sessions?meter=M"]
)
async def test_declared_device_that_never_reported_has_figures_of_nothing(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "was ever stored")
    for device in ("vehicles/EV_9", "meters/M"):
        assert (await client.put(f"/v1/devices/{device}", json={"intervalS": 60})).status_code == 201
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found.get("items", []) == []
    assert found.get("totalKwhConsumedAc") is None
    assert found.get("totalKwhDeliveredDc") is None


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list."""
    found, cursor = [], None
    while True:
        answer = await client.get(path, params=query | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        cursor = answer.json()["nextCursor"]
        if cursor is None:
            return found


async def test_live_pages_hold_every_device_once_in_order(client: httpx.AsyncClient) -> None:
    names = [f"EV_{n}" for n in range(25)]
    await store(client, *map(vehicle, names))
    found = await pages(client, "/v1/live/vehicles", limit=10)
    assert [len(page) for page in found] == [10, 10, 5]
    assert [item["vehicleId"] for page in found for item in page] == sorted(names)
    assert await pages(client, "/v1/live/meters") == [[]]


@pytest.mark.parametrize("cursor", ["x", "é", "W10", "WzFd", "bnVsbA", "' OR 1=1", "WyInIl0", "W" * 401])
async def test_invalid_cursor_is_422(client: httpx.AsyncClient, cursor: str) -> None:
    assert_problem(await client.get("/v1/live/vehicles", params={"cursor": cursor}), 422, "cursor")


async def test_history_pages_hold_the_half_open_period_in_order(client: httpx.AsyncClient) -> None:
    stored = list(minutes("EV_1", 30, end=at(29)))
    await store(client, *reversed(stored))
    query = {"from": format_timestamp(at(5)), "to": format_timestamp(at(25)), "limit": 7}
    found = await pages(client, "/v1/history/vehicles/EV_1", **query)
    assert [len(page) for page in found] == [7, 7, 6]
    times = [item["timestamp"] for page in found for item in page]
    assert times == [format_timestamp(at(n)) for n in range(5, 25)]


async def test_history_links_lead_to_the_next_page(client: httpx.AsyncClient) -> None:
    await store(client, *minutes("EV_1", 5))
    answer = await client.get("/v1/history/vehicles/EV_1", params={"limit": 3})
    link = answer.links["next"]["url"]
    assert link.startswith("?"), "a path or a host would be wrong behind a proxy"
    following = await client.get(answer.url.join(link))
    assert [len(page.json()["items"]) for page in (answer, following)] == [3, 2]
    assert "next" not in following.links


@pytest.mark.parametrize(
    ("accept", "served"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.9", "application/json"),
        ("text/html, text/csv;q=0.1", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
    ],
)
async def test_history_form_follows_accept(client: httpx.AsyncClient, accept: str, served: str) -> None:
    await store(client, meter("M_1"))
    answer = await client.get("/v1/history/meters/M_1", headers={"Accept": accept})
    assert answer.headers["content-type"].split(";")[0] == served


async def test_history_in_another_form_is_406(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/history/meters/M_1", headers={"Accept": "text/html"}), 406)


@pytest.mark.parametrize("path", ["/v1/history/vehicles/EV_1", "/v1/analytics/performance/EV_1"])
@pytest.mark.parametrize(
    ("query", "about"),
    [
        ({"from": "2026-02-10T10:15:00"}, "from: "),
        ({"to": "yesterday"}, "to: "),
        ({"from": "2026-02-10T10:15:00Z", "to": "2026-02-10T10:15:00Z"}, "not before"),
        ({"from": "1900-01-01T00:00:00Z"}, "the period exceeds"),
        ({"to": "0001-01-01T00:00:00Z"}, "to: "),
        ({"from": "' OR 1=1 --"}, "from: "),
    ],
)
async def test_bad_period_is_422_with_its_field(
    client: httpx.AsyncClient, path: str, query: dict[str, str], about: str
) -> None:
    assert_problem(await client.get(path, params=query), 422, about)


async def test_offset_whose_plus_was_not_escaped_is_understood(client: httpx.AsyncClient) -> None:
    await store(client, vehicle("EV_1", at(0)))
    start, end = at(-1).isoformat(), at(1).isoformat()
    answer = await client.get(f"/v1/history/vehicles/EV_1?from={start}&to={end}")
    assert "+00:00" in start
    assert len(answer.json()["items"]) == 1


@pytest.mark.parametrize("path", ["/v1/live/vehicles/EV%201", "/v1/history/meters/'--", "/v1/meters/%00/assignments"])
async def test_id_that_cannot_be_one_is_422(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 422, "Id: ")


async def test_assignment_is_created_then_replaced(client: httpx.AsyncClient, db: Connection) -> None:
    created = await assign(client, "M_1", at(0), "EV_1")
    assert created.status_code == 201
    assert created.json()["from"] == format_timestamp(at(0))
    assert created.json()["to"] is None
    assert (await assign(client, "M_1", at(0), "EV_1")).status_code == 200
    assert_problem(await assign(client, "M_1", at(0), None), 409, "EV_1")
    path = f"/v1/meters/M_1/assignments/{format_timestamp(at(0))}?replace=true"
    replaced = await client.put(path, json={"vehicleId": None})
    assert (replaced.status_code, replaced.json()["vehicleId"]) == (200, None)
    trail = await db.fetch("SELECT actor, action, subject, detail FROM audit_log WHERE action = 'assignment.put'")
    assert len(trail) == 2  # repeating it changed nothing
    assert trail[0]["actor"].startswith("key:")
    assert trail[1]["subject"] == "meter:M_1"
    (what,) = json.loads(trail[1]["detail"])["replaced"]
    assert (what["meterId"], what["vehicleId"]) == ("M_1", "EV_1")


async def test_assignments_end_where_the_meters_next_begins(client: httpx.AsyncClient) -> None:
    await assign(client, "M_1", at(20), None)
    await assign(client, "M_1", at(0), "EV_1")
    await assign(client, "M_1", at(10), "EV_2")
    await assign(client, "M_2", at(0), "EV_1")
    of_meter = await pages(client, "/v1/meters/M_1/assignments", limit=2)
    periods = [(i["from"], i["to"], i["vehicleId"]) for page in of_meter for i in page]
    times = [format_timestamp(at(n)) for n in (0, 10, 20)]
    assert periods == [(times[0], times[1], "EV_1"), (times[1], times[2], "EV_2"), (times[2], None, None)]
    of_vehicle = await pages(client, "/v1/vehicles/EV_1/assignments", limit=1)
    assert [(i["meterId"], i["to"]) for page in of_vehicle for i in page] == [("M_1", times[1]), ("M_2", None)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"vehicleId": "EV 1"}', 422),
        (b'{"vehicleId": 7}', 422),
        (b"{}", 422),
        (b'{"vehicleId": null, "x": 1}', 422),
        (b"[]", 422),
        (b"{", 400),
        (b'{"vehicleId": "' + b"x" * 100_000 + b'"}', 413),
    ],
)
async def test_bad_assignment_is_refused(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    path = "/v1/meters/M_1/assignments/2026-02-10T10:15:00Z"
    answer = await client.put(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, status)


@pytest.mark.parametrize("edge", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
async def test_assignment_from_an_end_of_time_is_422_and_leaves_nothing(client: httpx.AsyncClient, edge: str) -> None:
    assert_problem(await client.put(f"/v1/meters/M_EDGE/assignments/{edge}", json={"vehicleId": "EV_EDGE"}), 422)
    for path in ("/v1/meters/M_EDGE/assignments", "/v1/vehicles/EV_EDGE/assignments"):
        answer = await client.get(path)
        assert answer.status_code == 404 or answer.json()["items"] == []


async def test_assignment_from_a_naive_time_is_422(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/meters/M_1/assignments/2026-02-10T10:15:00", json={"vehicleId": None})
    assert_problem(answer, 422, "from: ")


async def test_performance_of_the_seeds_readings(client: httpx.AsyncClient) -> None:
    await assign(client, "METER_001", at(0), "EV_002")
    await store(client, vehicle("EV_002", at(15)), meter("METER_001", at(15)))
    found = await performance(client, "EV_002", at(0), at(60))
    assert (found["totalKwhConsumedAc"], found["totalKwhDeliveredDc"]) == (5.1, 4.25)
    assert found["efficiency"] == pytest.approx(4.25 / 5.1)
    assert found["efficiencyReason"] is None
    assert found["avgBatteryTemp"] == 38.6
    assert (found["readings"], found["coverage"]) == (1, pytest.approx(1 / 60))
    assert found["from"] == format_timestamp(at(0))
    (share,) = found["meters"]
    assert (share["meterId"], share["kwhConsumedAc"], share["readings"]) == ("METER_001", 5.1, 1)
    assert share["periods"][0]["to"] == format_timestamp(at(60))


async def test_performance_says_with_which_interval_gaps_were_judged(client: httpx.AsyncClient) -> None:
    await assign(client, "M_SLOW", at(-200), "EV_1")
    await store(client, vehicle("EV_1", at(0)), *(meter("M_SLOW", at(15 * n)) for n in range(5)))

    async def intervals() -> list[tuple[float, str]]:
        found = await performance(client, "EV_1", at(-60), at(60))
        return [(one["intervalS"], one["intervalSource"]) for one in (found, *found["meters"])]

    assert await intervals() == [(60.0, "default"), (900.0, "observed")]
    await client.put("/v1/devices/meters/M_SLOW", json={"intervalS": 300})
    assert await intervals() == [(60.0, "default"), (300.0, "declared")]


async def test_performance_defaults_to_the_last_24_hours(client: httpx.AsyncClient) -> None:
    now = now_minute()
    await store(client, vehicle("EV_1", now), vehicle("EV_1", now - timedelta(hours=25)))
    answer = (await client.get("/v1/analytics/performance/EV_1")).json()
    assert answer["readings"] == 1
    span = datetime.fromisoformat(answer["to"]) - datetime.fromisoformat(answer["from"])
    assert span == timedelta(hours=24)
    assert answer["totalKwhConsumedAc"] is answer["efficiency"] is None
    assert "no meter was assigned" in answer["efficiencyReason"]


async def test_ac_counts_only_while_assigned(client: httpx.AsyncClient) -> None:
    await assign(client, "M_1", at(10), "EV_1")
    await assign(client, "M_1", at(20), "EV_2")
    await assign(client, "M_1", at(30), "EV_1")
    await assign(client, "M_1", at(40), None)
    await store(client, vehicle("EV_1", at(0)), vehicle("EV_2", at(0)))
    await store(client, *(meter("M_1", at(n), kwh=1.0) for n in range(60)))
    first, second = await performance(client, "EV_1", at(0), at(35)), await performance(client, "EV_2", at(0), at(60))
    assert (first["totalKwhConsumedAc"], second["totalKwhConsumedAc"]) == (15, 10)
    (share,) = first["meters"]
    assert [(p["from"], p["readings"]) for p in share["periods"]] == [
        (format_timestamp(at(10)), 10),
        (format_timestamp(at(30)), 5),
    ]
    assert share["coverage"] == 1


async def test_an_interval_belongs_to_the_time_before_its_timestamp(client: httpx.AsyncClient) -> None:
    await assign(client, "M_1", at(10), "EV_1")
    await assign(client, "M_1", at(20), None)
    await store(client, vehicle("EV_1", at(10)), vehicle("EV_1", at(20)))
    await store(client, meter("M_1", at(10), kwh=1), meter("M_1", at(20), kwh=10))
    found = await performance(client, "EV_1", at(10), at(20))
    assert (found["readings"], found["totalKwhConsumedAc"]) == (1, 10)


async def test_efficiency_above_one_is_shown(client: httpx.AsyncClient) -> None:
    await assign(client, "M_1", at(0), "EV_1")
    await store(client, vehicle("EV_1", at(5)), meter("M_1", at(5), kwh=1))
    assert (await performance(client, "EV_1", at(0), at(10)))["efficiency"] == 4.25


@pytest.mark.parametrize(
    ("kwh", "reason"),
    [([], "no readings"), ([0.0], "drew no AC energy"), ([-2.0], "drew no AC energy"), ([1.0], "do not cover")],
)
async def test_efficiency_is_null_with_the_reason(client: httpx.AsyncClient, kwh: list[float], reason: str) -> None:
    await assign(client, "M_1", at(0), "EV_1")
    await store(client, vehicle("EV_1", at(5)), *(meter("M_1", at(n), kwh=value) for n, value in enumerate(kwh, 1)))
    found = await performance(client, "EV_1", at(0), at(10))
    assert found["efficiency"] is None
    assert reason in found["efficiencyReason"]


async def test_totals_are_exact_in_any_order(client: httpx.AsyncClient) -> None:
    await assign(client, "M_1", at(0), "EV_1")
    values = [1000.0, 0.000000000001, -1000.0, *[0.1] * 10]
    await store(client, vehicle("EV_1", at(0)), *(meter("M_1", at(n), kwh=value) for n, value in enumerate(values, 1)))
    assert (await performance(client, "EV_1", at(0), at(60)))["totalKwhConsumedAc"] == math.fsum(values)


async def test_mean_temperature_is_weighted_by_time(client: httpx.AsyncClient) -> None:
    readings = [(0, 20.0), (10, 20.0), (20, 40.0), (21, 40.0), (22, 40.0), (23, 40.0)]
    await store(client, *(vehicle("EV_1", at(n)).changed(battery_temp=t) for n, t in readings))
    found = await performance(client, "EV_1", at(0), at(60))
    assert found["avgBatteryTemp"] == pytest.approx((10 * 20 + 10 * 30 + 3 * 40) / 23)


async def test_coverage_counts_only_time_that_has_passed(client: httpx.AsyncClient) -> None:
    now = now_minute()
    await store(client, *minutes("EV_1", 60, end=now))
    found = await performance(client, "EV_1", now - timedelta(minutes=59), now + timedelta(days=1))
    assert 0.95 < found["coverage"] <= 1
    ahead = await performance(client, "EV_1", datetime.now(UTC) + timedelta(hours=1), now + timedelta(days=1))
    assert (ahead["coverage"], ahead["readings"], ahead["totalKwhDeliveredDc"]) == (None, 0, None)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
async def test_history_plans_only_the_partitions_of_the_period(
    client: httpx.AsyncClient, db: Connection, database_url: str, table: Table
) -> None:
    for day in range(4):
        await store(client, vehicle("EV_1", at(0) - timedelta(days=day)), meter("EV_1", at(0) - timedelta(days=day)))
    period = Period(at(-60 * 24), at(1))
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    rows = await as_api.fetch("EXPLAIN (COSTS OFF) " + page_sql(table, period), "EV_1", period.start, period.end, 10)
    await as_api.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Sort" not in plan
    days = re.findall(rf"Index Scan using \w+ on {table.history}_(\d+)", plan)
    assert days == [f"{(period.start + timedelta(days=n)):%Y%m%d}" for n in range(2)], plan


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_figures_are_read_by_the_keys_of_near_partitions(
    client: httpx.AsyncClient, database_url: str, postgres: Postgres, kind: Kind
) -> None:
    for day in range(60):
        end = at(0) - timedelta(days=day)
        await store(client, *minutes("EV_1", 20, end), *(meter("EV_1", end - timedelta(minutes=n)) for n in range(20)))
    postgres.sql("VACUUM ANALYZE", "api")
    question, sent = Question(kind, Period(at(-30), at(30))), {measure.column for measure in kind.measures}
    columns = [measure.column for measure in question.measures]
    near = [Neighbour(0, "EV_1", column, is_before) for column in columns for is_before in (True, False)]
    wanted = [Wanted(0, "EV_1", Span(0, question.span_us))]
    statements = [readings_sql(wanted, near, [question], [sent]), far_neighbours_sql(near, [question], [sent])]
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    rows = []
    for statement in statements:
        explained = "EXPLAIN (ANALYZE, COSTS OFF) " + statement.text
        rows += await as_api.fetch(explained, *statement.arguments)
    await as_api.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
    scanned = {
        line for line in plan.splitlines() if f"on {kind.history_table}_" in line and "(never executed)" not in line
    }
    days = {day for line in scanned for day in re.findall(rf"on {kind.history_table}_(\d+)", line)}
    assert min(days) >= f"{at(-30) - timedelta(days=32):%Y%m%d}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/v1/live/vehicles", 405),
        ("GET", "/v1/ingest", 405),
        ("DELETE", "/healthz", 405),
    ],
)
async def test_unknown_routes_and_methods_are_problems(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert_problem(await client.request(method, path), status)


async def test_metrics_count_what_was_stored(client: httpx.AsyncClient) -> None:
    await store(client, vehicle())
    text = (await client.get("/metrics")).text
    assert 'fleet_readings_total{outcome="stored"}' in text
    assert f'fleet_build_info{{version="{VERSION}"}} 1.0' in text
    assert 'fleet_http_answers_total{status="201"}' in text
