"""GET /v1/analytics/energy through HTTP: the cases of DESIGN 5 by bucket, days of any time zone, sites, pages."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import pytest

from api import groups
from api.database import SESSION
from api.read_limit import FOLDED
from bridge.contract import KINDS, METER, VEHICLE
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading, format_timestamp, reading
from tests.integration.api.server import Api, assert_problem
from tests.integration.api.test_figures import CASES, DAY, at, declare
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

ENERGY = "/v1/analytics/energy"
QUARTER = timedelta(minutes=15)
THAT_DAY = {"from": format_timestamp(DAY), "to": format_timestamp(DAY + timedelta(days=1))}
SUMS = ("kwhAc", "kwhDc", "kwhIn", "kwhOut", "suspectKwh", "unassignedKwh", "resets")


async def store(client: httpx.AsyncClient, readings: Sequence[Reading]) -> None:
    for start in range(0, len(readings), 10_000):
        answer = await client.post("/v1/ingest", content=encode_many(readings[start : start + 10_000]))
        assert answer.status_code == 201, answer.text


async def items(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get(ENERGY, params=THAT_DAY | query | cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


def sums(found: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """What adds up; null where each item is null."""
    values = {name: [item[name] for item in found if item[name] is not None] for name in SUMS}
    return {name: sum(own) if own else None for name, own in values.items()}


def quarters(meter: str, first: datetime, *values: float) -> list[Reading]:
    return [reading(METER, meter, first + n * QUARTER, {"kwh_consumed_ac": v}) for n, v in enumerate(values)]


def charges(vehicle: str, first: datetime, *values: float) -> list[Reading]:
    return [reading(VEHICLE, vehicle, first + n * QUARTER, {"kwh_delivered_dc": v}) for n, v in enumerate(values)]


async def put(client: httpx.AsyncClient, path: str, **body: object) -> None:
    assert (await client.put(path, json=body)).status_code in (200, 201)


# -- the cases of test_figures


@pytest.mark.parametrize("name", CASES)
async def test_vehicle_has_the_figures_of_its_performance(name: str, client: httpx.AsyncClient) -> None:
    case = CASES[name]
    await declare(client, case)
    await store(client, case.readings)
    whole = (await client.get("/v1/analytics/performance/V", params=case.query)).json()
    (total,) = await items(client, of="vehicles", id="V", **case.query)
    assert (total["kwhAc"], total["kwhDc"]) == (whole["totalKwhConsumedAc"], whole["totalKwhDeliveredDc"])
    for figure in ("coverage", "boundaryKwh", "suspectKwh", "resets", "from", "to"):
        assert total[figure] == whole[figure], figure
    for bucket in ("15m", "hour", "day"):
        parts = await items(client, of="vehicles", id="V", bucket=bucket, tz="Asia/Kathmandu", **case.query)
        assert (parts[0]["from"], parts[-1]["to"]) == (total["from"], total["to"])
        assert sums(parts) == pytest.approx(sums([total]), abs=1e-9)


METER_CASES: dict[str, dict[str, float]] = {
    "1 an interval that ends with the assignment": {"kwhAc": 5.0, "unassignedKwh": 0},
    "2 an interval across two assignments": {"kwhAc": 6.0, "unassignedKwh": 0},
    "3 an interval after whose assignment is none": {"kwhAc": 6.0, "unassignedKwh": 0},
    "3 energy that no assignment overlaps": {"kwhAc": 9.0, "unassignedKwh": 3.0},
    "4 a period that begins within an interval": {"kwhAc": 14.0, "boundaryKwh": 4.0, "coverage": 1.0},
    "5 a lost reading of a register": {"kwhAc": 3.5, "coverage": 1.0},
    "6 a register that is reset": {"kwhAc": 1.5, "resets": 1},
    "7 a register with jitter": {"kwhAc": 0.1, "resets": 0, "suspectKwh": 0},
    "8 a register that jumps": {"kwhAc": 0.1, "resets": 0, "suspectKwh": 9324.0},
    "9 the first reading of a register": {"kwhAc": 0, "suspectKwh": 0},
    "10 a complete day of quarters": {"kwhAc": 48.0, "coverage": 1.0},
    "17 vehicle to grid": {"kwhAc": 6.3, "kwhIn": 10.0, "kwhOut": 3.7},
}


@pytest.mark.parametrize("name", METER_CASES)
async def test_meter_has_the_figures_of_a_case(name: str, client: httpx.AsyncClient) -> None:
    case = CASES[name]
    await declare(client, case)
    await store(client, case.readings)
    (total,) = await items(client, of="meters", id="M", **case.query)
    expected = METER_CASES[name]
    assert {figure: total[figure] for figure in expected} == pytest.approx(expected, abs=1e-12)
    assert total["kwhDc"] is None
    parts = await items(client, of="meters", id="M", bucket="15m", **case.query)
    assert sums(parts) == pytest.approx(sums([total]), abs=1e-9)


async def test_buckets_carry_a_registers_highest_value(client: httpx.AsyncClient) -> None:
    """A bucket for each reading: what was reached in an earlier one is not counted again after jitter."""
    values = [10.0, 12.0, 11.9, 12.0, 12.5]
    await store(
        client,
        [reading(METER, "M", at("10:00") + n * QUARTER, {"kwh_import_register": v}) for n, v in enumerate(values)],
    )
    parts = await items(client, of="meters", id="M", bucket="15m")
    assert [part["kwhAc"] for part in parts if part["kwhAc"]] == [2.0, 0.5]


@pytest.mark.parametrize(("fell_at", "kwh"), [("09:58", 0.0), ("06:01", 0.0), ("05:59", 0.1)])
async def test_climb_back_of_a_register_that_fell_in_the_hours_before_the_period_is_no_energy(
    fell_at: str, kwh: float, client: httpx.AsyncClient
) -> None:
    """The last value before the period has fallen; the highest one is known for four hours."""
    register = "kwh_charged_register"
    values = [
        (fell_at, {register: 100.1, "battery_temp": 20.0}),
        ("09:59", {register: 100.0}),
        ("10:00", {register: 100.0}),
        ("10:03", {register: 100.1}),
    ]
    await store(client, [reading(VEHICLE, "V", at(clock), own) for clock, own in values])
    asked = {"from": format_timestamp(at("10:00")), "to": format_timestamp(at("10:04"))}
    for question in (asked, asked | {"from": format_timestamp(at("10:01"))}):
        (total,) = await items(client, of="vehicles", id="V", **question)
        whole = (await client.get("/v1/analytics/performance/V", params=question)).json()
        part = kwh if question is asked else kwh * 2 / 3
        assert total["kwhDc"] == whole["totalKwhDeliveredDc"] == pytest.approx(part)


async def test_register_counts_although_all_its_values_came_late(client: httpx.AsyncClient) -> None:
    await store(client, [reading(METER, "M", at("12:00"), {"kwh_consumed_ac": 0.5})])
    values = {"10:00": 100.0, "10:30": 103.0}
    await store(client, [reading(METER, "M", at(clock), {"kwh_import_register": v}) for clock, v in values.items()])
    (total,) = await items(client, of="meters", id="M")
    assert total["kwhAc"] == 3.5


# -- time zones


@pytest.mark.parametrize(
    ("zone", "day", "kwh"),
    [
        ("Europe/Berlin", datetime(2026, 10, 25), 25.0),  # noqa: DTZ001  # local
        ("Europe/Berlin", datetime(2026, 3, 29), 23.0),  # noqa: DTZ001
        ("Asia/Kolkata", datetime(2026, 10, 25), 24.0),  # noqa: DTZ001
        ("America/St_Johns", datetime(2026, 10, 25), 24.0),  # noqa: DTZ001
    ],
)
async def test_21_local_day_has_its_own_length(
    zone: str, day: datetime, kwh: float, start_api: Callable[..., Api], token: str
) -> None:
    midnight = day.replace(tzinfo=ZoneInfo(zone))
    start, end = (midnight + timedelta(days=n) for n in (-1, 2))
    api = start_api(past_limit_days=3_650)
    async with api.client(token) as client:
        await put(client, "/v1/devices/meters/M", intervalS=900)
        count = (end.astimezone(UTC) - start.astimezone(UTC)) // QUARTER
        await store(client, quarters("M", start.astimezone(UTC) + QUARTER, *[0.25] * count))
        period = {"from": start.isoformat(), "to": end.isoformat(), "tz": zone}
        before, found, after = await items(client, of="meters", id="M", bucket="day", **period)
        assert (found["from"], found["to"]) == tuple(
            format_timestamp((midnight + timedelta(days=n)).astimezone(UTC)) for n in (0, 1)
        )
        assert (found["kwhAc"], found["coverage"], found["boundaryKwh"]) == (kwh, 1.0, 0)
        assert before["kwhAc"] + found["kwhAc"] + after["kwhAc"] == count * 0.25
        hours = await items(client, of="meters", id="M", bucket="hour", **period)
        assert [hour["kwhAc"] for hour in hours] == [1.0] * (count // 4)


async def test_weeks_and_months_are_those_of_the_zone(client: httpx.AsyncClient) -> None:
    start, zone = datetime.now(UTC) - timedelta(days=90), ZoneInfo("Pacific/Auckland")
    await put(client, "/v1/devices/meters/M", intervalS=900)
    period = {"from": format_timestamp(start), "to": format_timestamp(datetime.now(UTC)), "tz": zone.key}
    for bucket in ("week", "month"):
        found = await items(client, of="meters", id="M", bucket=bucket, **period)
        begins = [datetime.fromisoformat(item["from"]).astimezone(zone) for item in found[1:]]
        assert len(begins) >= 2
        assert all((begin.hour, begin.minute) == (0, 0) for begin in begins)
        assert {begin.weekday() if bucket == "week" else begin.day for begin in begins} == {
            0 if bucket == "week" else 1
        }


# -- groups


@pytest.fixture
async def fleet(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Two depots with a vehicle and a meter each, and a meter that is declared nowhere."""
    for id_, site in (("1", "North"), ("2", "=South, 2")):
        await put(client, f"/v1/devices/meters/M{id_}", intervalS=900, site=site)
        await put(client, f"/v1/devices/vehicles/V{id_}", intervalS=900, site=site)
        await put(client, f"/v1/meters/M{id_}/assignments/{format_timestamp(at('10:00'))}", vehicleId=f"V{id_}")
    await put(client, "/v1/devices/vehicles/NEVER", site="North")
    first = at("10:15")
    await store(client, [*quarters("M1", first, 2, 2, -1), *quarters("M2", first, 5), *quarters("M3", first, 7, 8)])
    await store(client, [*charges("V1", first, 1.5, 1.5, -1.25), *charges("V2", first, 4.5)])
    return client


async def test_vehicles_have_the_energy_of_their_own_and_of_their_meters(fleet: httpx.AsyncClient) -> None:
    never, one, two = await items(fleet, of="vehicles")
    assert [item["id"] for item in (never, one, two)] == ["NEVER", "V1", "V2"]
    assert (one["kwhAc"], one["kwhDc"], one["kwhIn"], one["kwhOut"]) == (3.0, 1.75, 3.0, 1.25)
    assert (two["kwhAc"], two["kwhDc"], two["coverage"]) == (5.0, 4.5, 1 / 96)
    assert [never[name] for name in ("kwhAc", "kwhDc", "kwhIn", "kwhOut")] == [None] * 4
    assert never["coverage"] == 0
    assert {item["unassignedKwh"] for item in (never, one, two)} == {None}


async def test_sites_are_the_sums_of_their_devices(fleet: httpx.AsyncClient) -> None:
    south, north = await items(fleet, of="sites")
    assert [item["id"] for item in (south, north)] == ["=South, 2", "North"]
    assert (north["kwhAc"], north["kwhDc"], north["kwhIn"], north["kwhOut"]) == (3.0, 1.75, 4.0, 1.0)
    assert (south["kwhAc"], south["kwhDc"], south["coverage"]) == (5.0, 4.5, 1 / 96)
    assert await items(fleet, of="sites", site="North") == [north]
    assert_problem(await fleet.get(ENERGY, params={"of": "sites", "site": "East"}), 404, "East")


async def test_fleet_is_the_sum_of_all_devices(fleet: httpx.AsyncClient) -> None:
    (fleet_total,) = await items(fleet, of="fleet")
    meters = await items(fleet, of="meters")
    assert fleet_total["id"] is None
    assert (fleet_total["kwhAc"], fleet_total["kwhDc"], fleet_total["unassignedKwh"]) == (23.0, 6.25, 15.0)
    assert (fleet_total["kwhIn"], fleet_total["kwhOut"]) == (24.0, 1.0)
    assert sum(meter["kwhAc"] for meter in meters) == 23.0
    (north,) = await items(fleet, of="fleet", site="North")
    assert (north["id"], north["kwhAc"], north["kwhDc"]) == (None, 3.0, 1.75)
    parts = await items(fleet, of="fleet", bucket="hour")
    assert len(parts) == 24
    assert sums(parts) == sums([fleet_total])


async def test_ids_and_site_narrow_the_devices(fleet: httpx.AsyncClient) -> None:
    found = await items(fleet, of="meters", id=["M3", "M1", "M3"])
    assert [item["id"] for item in found] == ["M1", "M3"]
    assert [item["id"] for item in await items(fleet, of="meters", site="North")] == ["M1"]
    assert [item["id"] for item in await items(fleet, of="vehicles", site="North", id=["V1", "V2"])] == ["V1"]


async def test_vehicle_that_was_never_heard_of_has_the_energy_of_its_meter(client: httpx.AsyncClient) -> None:
    await put(client, f"/v1/meters/M/assignments/{format_timestamp(at('10:00'))}", vehicleId="SILENT")
    await put(client, "/v1/devices/meters/M", intervalS=900)
    await store(client, quarters("M", at("10:15"), 3))
    (found,) = await items(client, of="vehicles")
    assert (found["id"], found["kwhAc"], found["kwhDc"], found["coverage"]) == ("SILENT", 3.0, None, 0)


async def test_two_vehicles_share_a_meter(client: httpx.AsyncClient) -> None:
    await put(client, "/v1/devices/meters/M", intervalS=900)
    for clock, vehicle in (("10:00", "A"), ("10:05", "B")):
        await put(client, f"/v1/meters/M/assignments/{format_timestamp(at(clock))}", vehicleId=vehicle)
    await store(client, quarters("M", at("10:15"), 6))
    assert [(item["id"], item["kwhAc"]) for item in await items(client, of="vehicles")] == [("A", 2.0), ("B", 4.0)]


async def test_unassigned_energy_is_that_of_its_bucket(client: httpx.AsyncClient) -> None:
    await put(client, "/v1/devices/meters/M", intervalS=900)
    await put(client, f"/v1/meters/M/assignments/{format_timestamp(at('10:30'))}", vehicleId="V")
    await store(client, quarters("M", at("10:15"), 1, 2, 4, -8))
    found = await items(client, of="meters", id="M", bucket="15m")
    assert [item["unassignedKwh"] for item in found if item["kwhAc"]] == [1.0, 2.0, 0, 0]


# -- time to come, and devices that are silent


async def test_period_to_come_has_neither_energy_nor_coverage(fleet: httpx.AsyncClient) -> None:
    start = datetime.now(UTC) + timedelta(days=30)
    query = {"from": format_timestamp(start), "to": format_timestamp(start + timedelta(days=1))}
    for of in ("vehicles", "meters", "sites", "fleet"):
        found = await items(fleet, of=of, bucket="hour", **query)
        assert {(item["kwhAc"], item["kwhDc"], item["coverage"], item["resets"]) for item in found} == {
            (None, None, None, 0)
        }


async def test_unknown_device_is_not_found(fleet: httpx.AsyncClient) -> None:
    answer = await fleet.get(ENERGY, params={"of": "meters", "id": ["M1", "M404"]})
    assert_problem(answer, 404, "no reading of meter M404 was ever stored")


# -- pages


@pytest.mark.parametrize("limit", [1, 5, 7, 24, 25])
async def test_pages_are_the_whole_in_order(limit: int, fleet: httpx.AsyncClient) -> None:
    for of in ("vehicles", "meters", "sites", "fleet"):
        whole = await items(fleet, of=of, bucket="hour", limit=10_000)
        assert whole
        query: dict[str, Any] = {"of": of, "bucket": "hour", "limit": limit, **THAT_DAY}
        answer = await fleet.get(ENERGY, params=query)
        assert answer.json()["items"] == whole[:limit]
        assert await items(fleet, of=of, bucket="hour", limit=limit) == whole


async def test_next_page_keeps_the_period_of_the_first(fleet: httpx.AsyncClient) -> None:
    """Without `to` the period ends now, which is later when the next page is asked for."""
    first = (await fleet.get(ENERGY, params={"of": "meters", "limit": 1})).json()
    query = {"of": "meters", "cursor": first["nextCursor"]}
    following = (await fleet.get(ENERGY, params=query)).json()
    assert len(following["items"]) == 2
    assert {(item["from"], item["to"]) for item in following["items"]} == {
        (first["items"][0]["from"], first["items"][0]["to"])
    }
    assert_problem(await fleet.get(ENERGY, params=query | THAT_DAY), 422, "cursor: is of another period")
    hourly: dict[str, Any] = {"of": "meters", "bucket": "hour", "limit": 3, **THAT_DAY}
    cursor = (await fleet.get(ENERGY, params=hourly)).json()["nextCursor"]
    other = hourly | {"bucket": "day", "cursor": cursor}
    assert_problem(await fleet.get(ENERGY, params=other), 422, "cursor: is of another bucket or time zone")
    for change in ({"of": "vehicles"}, {"id": "M"}, {"of": "sites"}):
        other = hourly | {"cursor": cursor} | change
        assert_problem(await fleet.get(ENERGY, params=other), 422, "cursor: is of a list with another of, id or site")


# -- what is refused


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "of: Field required"),
        ({"of": "chargers"}, "of: Input should be 'vehicles', 'meters', 'sites' or 'fleet'"),
        ({"of": "fleet", "bucket": "year"}, "bucket: Input should be"),
        ({"of": "fleet", "tz": "Mars/Olympus"}, "tz: Input should be an IANA time zone"),
        ({"of": "fleet", "tz": "../etc/passwd"}, "tz: Input should be an IANA time zone"),
        ({"of": "fleet", "id": "M1"}, "id: names vehicles or meters; of=fleet is narrowed by site"),
        ({"of": "meters", "id": "M 1"}, "id[0]: Device ids have"),
        ({"of": "meters", "limit": "0"}, "limit: "),
        ({"of": "meters", "cursor": "bm8"}, "cursor: is not a nextCursor of this list"),
        ({"of": "meters", "timezone": "UTC"}, "timezone: unknown parameter; did you mean tz?"),
    ],
)
async def test_wrong_question_is_refused(query: dict[str, str], reason: str, client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(ENERGY, params=query), 422, reason)


async def test_work_of_a_request_is_bounded(client: httpx.AsyncClient) -> None:
    """Lists of devices go on with further pages; a sum of too many devices names what to narrow."""
    count = FOLDED.readings // 90 + 2
    await store(client, [r for n in range(count) for r in quarters(f"M{n}", at("10:15"), 1)])
    for n in range(count):
        await put(client, f"/v1/devices/meters/M{n}", site="North" if n else "South")
    days = {"from": format_timestamp(DAY - timedelta(days=89)), "to": format_timestamp(DAY + timedelta(days=1))}
    page = (await client.get(ENERGY, params={"of": "meters", **days})).json()
    assert len(page["items"]) == FOLDED.readings // 90
    assert page["nextCursor"] is not None
    assert [item["kwhAc"] for item in await items(client, of="meters", **days)] == [1.0] * count
    fleet = await client.get(ENERGY, params={"of": "fleet", **days})
    assert_problem(fleet, 422, f"site: one item is made of more than {FOLDED.readings // 90} devices")
    sites = await client.get(ENERGY, params={"of": "sites", **days})
    assert_problem(sites, 422, "narrow site, from or to")
    assert [item["kwhAc"] for item in await items(client, of="fleet", site="South", **days)] == [1.0]
    week = days | {"from": format_timestamp(DAY - timedelta(days=6))}
    assert [item["kwhAc"] for item in await items(client, of="fleet", **week)] == [count]


async def test_vehicle_with_too_many_meters_is_refused(client: httpx.AsyncClient) -> None:
    rows = [{"meterId": f"M{n}", "vehicleId": "V", "from": format_timestamp(at("10:00"))} for n in range(12)]
    assert (await client.post("/v1/assignments", json=rows)).status_code == 200
    days = {"from": format_timestamp(DAY - timedelta(days=89)), "to": format_timestamp(DAY + timedelta(days=1))}
    assert_problem(
        await client.get(ENERGY, params={"of": "vehicles", **days}), 422, "from: one item is made of more than"
    )


async def test_period_longer_than_the_bound_is_refused(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(figures_range_limit_days=100_000)
    async with api.client(token) as client:
        answer = await client.get(ENERGY, params={"of": "meters", "from": "1900-01-01T00:00:00Z", "bucket": "15m"})
        assert_problem(answer, 422, "bucket: the period is longer than 400 days")
        answer = await client.get(ENERGY, params={"of": "meters", "from": "1900-01-01T00:00:00Z"})
        assert_problem(answer, 422, "from: 1 devices over")


async def test_groups_are_found_by_keys(fleet: httpx.AsyncClient, database_url: str) -> None:
    period = (DAY, DAY + timedelta(days=1))
    questions: dict[str, tuple[object, ...]] = {
        **{groups._sql(groups._DEVICES, kind): ("", 100) for kind in KINDS},
        **{groups._sql(groups._UNKNOWN, kind): (["M1", "V1"],) for kind in KINDS},
        groups._OF_SITE: ("meter", "North", "", 100),
        groups._IDS_OF_SITE: ("meter", "North", ["M1"]),
        groups._SITES: ("", 100),
        groups._THESE_SITES: ("", 100, ["vehicle", "meter"], ["North"]),
        groups._FED_BY: (["V1", "V2"], *period),
        groups._ASSIGNMENTS: (["M1", "M2"], *period),
    }
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    for sql, values in questions.items():
        plan = "\n".join(row[0] for row in await as_api.fetch("EXPLAIN (COSTS OFF) " + sql, *values))
        assert "Index" in plan
        assert "Seq Scan" not in plan, plan
    await as_api.close()


@pytest.mark.parametrize("is_summarized", [False, True])
async def test_sum_of_a_fleet_may_be_larger_than_eight_bytes(
    is_summarized: bool,
    client: httpx.AsyncClient,
    db: asyncpg.Connection,
) -> None:
    """10,000 MWh in units of 1e-12 kWh; each reading has the most that the contract allows."""
    count, minute = 10_000, timedelta(minutes=1)
    await store(client, [reading(METER, "M", DAY - n * minute, {"kwh_consumed_ac": 1000}) for n in range(count)])
    if is_summarized:
        await summarize(db)
    period = {"from": format_timestamp(DAY - count * minute), "to": format_timestamp(DAY)}
    (total,) = await items(client, of="fleet", **period)
    assert total["kwhAc"] == 1e7


async def test_unknown_site_is_not_found(fleet: httpx.AsyncClient) -> None:
    for of in ("fleet", "sites", "vehicles", "meters"):
        assert_problem(await fleet.get(ENERGY, params={"of": of, "site": "typo"}), 404, "typo")


@pytest.mark.parametrize("path", [ENERGY + "?of=fleet", "/v1/quality?", "/v1/analytics/performance/V1?"])
async def test_earliest_instant_is_answered(path: str, fleet: httpx.AsyncClient) -> None:
    answer = await fleet.get(f"{path}&from=0001-01-02T00:00:00Z&to=0001-01-03T00:00:00Z")
    assert answer.status_code == 200, answer.text
