"""GET /v1/quality through HTTP: each kind of fault on stored rows, silent devices, pages, CSV, refused requests."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import asyncpg
import httpx
import pytest

from api import device_faults, keys
from api.database import SESSION
from api.energy.quality import Order
from api.period import Period
from api.read_limit import ONE_BY_ONE
from bridge.contract import KINDS, METER, VEHICLE, Kind
from bridge.formats.contract_json import encode, encode_many, topic_of
from bridge.reading import Reading, format_timestamp, parse_timestamp, reading
from local.mosquitto import Mosquitto
from tests.bridges import serving
from tests.devices import device
from tests.integration.api.server import Api, Connection, assert_problem
from tests.integration.api.test_figures import DAY, at
from tests.until import until

pytestmark = pytest.mark.anyio

QUALITY = "/v1/quality"
QUARTER = timedelta(minutes=15)
FOUR_HOURS = {"from": format_timestamp(at("10:00")), "to": format_timestamp(at("14:00"))}
ORDERS: tuple[str, ...] = get_args(Order)
NO_FAULT = {
    "severity": 0,
    "silent": False,
    "resets": 0,
    "suspectKwh": 0,
    "conflicts": 0,
    "implausible": 0,
    "coverage": 1,
}


def quarters(kind: Kind, device: str, column: str, values: Sequence[float | None]) -> list[Reading]:
    """Readings each quarter hour from 10:00 on; None is a lost one."""
    times = (at("10:00") + n * QUARTER for n in range(len(values)))
    return [reading(kind, device, t, {column: v}) for t, v in zip(times, values, strict=True) if v is not None]


def ac(device: str, *values: float | None) -> list[Reading]:
    return quarters(METER, device, "kwh_consumed_ac", values)


def dc(device: str, *values: float | None) -> list[Reading]:
    return quarters(VEHICLE, device, "kwh_delivered_dc", values)


def imports(device: str, *values: float | None) -> list[Reading]:
    return quarters(METER, device, "kwh_import_register", values)


async def store(client: httpx.AsyncClient, readings: Sequence[Reading], status: int = 201) -> dict[str, Any]:
    answer = await client.post("/v1/ingest", content=encode_many(readings))
    assert answer.status_code == status, answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


async def declare(client: httpx.AsyncClient, plural: str, site: str | None, *ids: str) -> None:
    rows = [{"id": id_, "site": site, "intervalS": 900} for id_ in ids]
    assert (await client.post(f"/v1/devices/{plural}", json=rows)).status_code == 200


async def ask(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get(QUALITY, params=FOUR_HOURS | query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def paged(client: httpx.AsyncClient, query: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of all pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get(QUALITY, params=query | cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        assert answer.headers["X-Next-Cursor"] == page["nextCursor"]
        cursor = {"cursor": page["nextCursor"]}


def by_id(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in page["items"]}


METERS = ("M_GAP", "M_GOOD", "M_IMPLAUSIBLE", "M_JUMP", "M_RESET", "M_UNASSIGNED")


@pytest.fixture
async def fleet(client: httpx.AsyncClient, db: Connection) -> httpx.AsyncClient:
    """Two sites with one device of each kind of fault, over four hours with a reading each quarter hour."""
    await declare(client, "meters", "North", *METERS[:3])
    await declare(client, "meters", "=South, 2", *METERS[3:])
    await declare(client, "vehicles", "North", "V_GOOD", "V_NEVER", "V_SILENT")
    await db.execute("UPDATE device SET created_at = $1", DAY)
    given = [
        {"meterId": meter, "vehicleId": "V_GOOD", "from": format_timestamp(DAY)}
        for meter in METERS
        if meter != "M_UNASSIGNED"
    ]
    assert (await client.post("/v1/assignments", json=given)).status_code == 200
    whole = [1.0] * 17
    await store(client, [*ac("M_GOOD", *whole), *dc("V_GOOD", *whole), *ac("M_UNASSIGNED", *whole)])
    await store(client, [*dc("V_SILENT", *[1.0] * 13), *ac("M_GAP", *[1.0] * 5, None, None, None, *[1.0] * 9)])
    await store(client, imports("M_RESET", *[100.0 + n for n in range(9)], *[0.5 + n for n in range(8)]))
    await store(client, imports("M_JUMP", *[10.0] * 8, *[9334.0 + n for n in range(9)]))
    receipt = await store(client, ac("M_IMPLAUSIBLE", *[1.0] * 3, 900.0, -900.0, 250.0, *[1.0] * 11))
    assert [warning["index"] for warning in receipt["warnings"]] == [3, 4]
    return client


# -- each kind of fault


async def test_device_without_faults_has_none(fleet: httpx.AsyncClient) -> None:
    found = by_id(await ask(fleet))
    for id_, kind in (("M_GOOD", "meter"), ("V_GOOD", "vehicle")):
        item = found[id_]
        assert (item["kind"], item["site"]) == (kind, "North")
        assert {name: item[name] for name in NO_FAULT} == NO_FAULT
        assert (item["lastReadingAt"], item["ageS"]) == (format_timestamp(at("13:45")), 900)
        assert (item["intervalS"], item["unassignedKwh"]) == (900, 0 if kind == "meter" else None)


@pytest.mark.parametrize(
    ("id_", "fault"),
    [
        ("M_GAP", {"coverage": 13 / 16, "severity": 3 / 16}),
        ("M_RESET", {"resets": 1, "severity": 1}),
        ("M_JUMP", {"suspectKwh": 9324.0, "coverage": 15 / 16, "severity": 1 + 1 / 16}),
        ("M_IMPLAUSIBLE", {"implausible": 2, "severity": 1}),
        ("V_SILENT", {"silent": True, "coverage": 12 / 16, "severity": 1 + 4 / 16}),
        ("V_NEVER", {"silent": True, "coverage": 0, "severity": 2}),
    ],
)
async def test_fault_is_found_and_no_other(id_: str, fault: dict[str, Any], fleet: httpx.AsyncClient) -> None:
    item = by_id(await ask(fleet))[id_]
    assert {name: item[name] for name in NO_FAULT} == NO_FAULT | fault


async def test_unassigned_energy_is_shown_and_no_fault(fleet: httpx.AsyncClient) -> None:
    item = by_id(await ask(fleet))["M_UNASSIGNED"]
    assert (item["unassignedKwh"], item["severity"]) == (16.0, 0)


async def test_conflicts_of_the_period_are_counted(client: httpx.AsyncClient) -> None:
    """By the time of their rejection; a reading that is sent again is no conflict, and the kinds are kept apart."""
    first = [*ac("SAME", 1.0, 2.0, 3.0), *dc("SAME", 1.0)]
    await store(client, first)
    await store(client, first)
    await store(client, [*ac("SAME", 1.5, 2.0, 3.5), *dc("SAME", 1.0)], 207)
    await store(client, ac("SAME", 1.5, 2.0, 3.5), 207)
    meter, vehicle = sorted((await client.get(QUALITY)).json()["items"], key=lambda item: str(item["kind"]))
    assert (meter["kind"], meter["conflicts"], vehicle["kind"], vehicle["conflicts"]) == ("meter", 2, "vehicle", 0)
    assert meter["severity"] == 1 + vehicle["severity"]
    earlier = await ask(client)
    assert [item["conflicts"] for item in earlier["items"]] == [0, 0]
    assert earlier["totals"]["conflicts"] == 0


async def test_conflict_by_mqtt_is_that_of_its_kind(
    client: httpx.AsyncClient, broker: Mosquitto, database_url: str, db: Connection
) -> None:
    readings = [*ac("SAME", 1.0), *dc("SAME", 1.0), *dc("SAME", 2.0)]
    async with serving(broker.bridge_url, database_url), device(broker.url) as gateway:
        for each in readings:
            await gateway.publish(topic_of(each), encode(each), 1)
        await until(lambda: _is_rejected(db, 1))
    items = (await client.get(QUALITY)).json()["items"]
    assert {item["kind"]: item["conflicts"] for item in items} == {"meter": 0, "vehicle": 1}


async def _is_rejected(db: Connection, count: int) -> bool:
    found: int = await db.fetchval("SELECT count(*) FROM rejected_message")
    return found == count


async def test_implausible_readings_are_those_with_a_warning(client: httpx.AsyncClient) -> None:
    """Declared power and interval decide, else the defaults."""
    await client.put("/v1/devices/meters/DECLARED", json={"ratedKw": 50, "intervalS": 900})
    await client.put("/v1/devices/vehicles/RATED", json={"ratedKw": 60})
    values = (0.0, 1.0, 1.001, 8.3, 8.4, 12.5, 12.6, 16.6, 16.7, -12.6, -16.7, 999.0)
    readings = [*ac("DECLARED", *values), *ac("PLAIN", *values), *dc("RATED", *values), *dc("PLAIN", *values)]
    receipt = await store(client, readings)
    warned = [readings[warning["index"]] for warning in receipt["warnings"]]
    period = {"from": format_timestamp(at("10:00")), "to": format_timestamp(at("13:00"))}
    page = await ask(client, **period)
    expected = {(kind.name, id_): 0 for kind in KINDS for id_ in ("PLAIN", "DECLARED" if kind is METER else "RATED")}
    for each in warned:
        expected[each.kind.name, each.device] += 1
    assert {(item["kind"], item["id"]): item["implausible"] for item in page["items"]} == expected
    assert page["totals"]["implausible"] == len(warned) > 10


async def test_last_reading_is_that_before_the_end_of_the_period(fleet: httpx.AsyncClient) -> None:
    """Also where the device has reported later, or not in the period at all."""
    early = {"from": format_timestamp(at("10:00")), "to": format_timestamp(at("10:30"))}
    found = by_id(await ask(fleet, **early))
    assert found["V_SILENT"]["lastReadingAt"] == format_timestamp(at("10:15"))
    assert (found["V_SILENT"]["silent"], found["V_SILENT"]["severity"]) == (False, 0)
    late = {"from": format_timestamp(at("20:00")), "to": format_timestamp(at("21:00"))}
    found = by_id(await ask(fleet, **late))
    assert (found["V_SILENT"]["lastReadingAt"], found["V_SILENT"]["ageS"]) == (format_timestamp(at("13:00")), 8 * 3600)
    before = {"from": format_timestamp(at("08:00")), "to": format_timestamp(at("10:00"))}
    found = by_id(await ask(fleet, **before))
    assert (found["V_SILENT"]["lastReadingAt"], found["V_SILENT"]["silent"]) == (None, True)


async def test_device_that_reports_now_is_not_silent(client: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    await store(
        client, [reading(METER, "M", now - timedelta(minutes=n), {"kwh_consumed_ac": 0.1}) for n in range(1, 9)]
    )
    (item,) = (await client.get(QUALITY)).json()["items"]
    assert (item["silent"], item["intervalS"]) == (False, 60)
    assert 60 <= item["ageS"] < 120
    (later,) = (await client.get(QUALITY, params={"to": format_timestamp(now + timedelta(days=1))})).json()["items"]
    assert (later["silent"], later["ageS"] < 120) == (False, True)
    (past,) = (await client.get(QUALITY, params={"to": format_timestamp(now)})).json()["items"]
    assert (past["lastReadingAt"], past["ageS"]) == (format_timestamp(now - timedelta(minutes=1)), 60)


async def test_declared_device_is_silent_here_when_it_is_in_the_live_list(
    client: httpx.AsyncClient, db: Connection
) -> None:
    """That is three intervals after its declaration if it has never reported."""
    await declare(client, "vehicles", None, "V_NEW", "V_OLD")
    await db.execute("UPDATE device SET created_at = now() - 3 * interval '900 s' WHERE id = 'V_OLD'")
    live = (await client.get("/v1/live/vehicles", params={"neverReported": True})).json()["items"]
    judged = (await client.get(QUALITY)).json()["items"]
    assert {item["vehicleId"]: item["silent"] for item in live} == {"V_NEW": False, "V_OLD": True}
    assert {item["id"]: item["silent"] for item in judged} == {"V_NEW": False, "V_OLD": True}


async def test_period_to_come_has_no_coverage(fleet: httpx.AsyncClient) -> None:
    start = datetime.now(UTC) + timedelta(days=40)
    page = await ask(fleet, **{"from": format_timestamp(start), "to": format_timestamp(start + timedelta(days=1))})
    assert {item["coverage"] for item in page["items"]} == {None}
    assert {item["severity"] for item in page["items"]} == {1}
    assert by_id(page)["M_GOOD"]["lastReadingAt"] == format_timestamp(at("14:00"))
    assert page["totals"]["coverage"] is None


async def test_device_that_is_only_assigned_is_judged(client: httpx.AsyncClient) -> None:
    path = f"/v1/meters/M/assignments/{format_timestamp(at('10:00'))}"
    assert (await client.put(path, json={"vehicleId": "V"})).status_code == 201
    page = await ask(client)
    assert [(item["kind"], item["id"], item["severity"]) for item in page["items"]] == [
        ("meter", "M", 2),
        ("vehicle", "V", 2),
    ]
    assert page["totals"]["neverSeen"] == 2


# -- the order, sites and kinds


async def test_worst_device_is_the_first(fleet: httpx.AsyncClient) -> None:
    assert [item["id"] for item in (await ask(fleet))["items"]] == [
        *("V_NEVER", "V_SILENT", "M_JUMP", "M_IMPLAUSIBLE", "M_RESET", "M_GAP"),
        *("M_GOOD", "M_UNASSIGNED", "V_GOOD"),
    ]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("coverage", ["V_NEVER", "V_SILENT", "M_GAP", "M_JUMP"]),
        ("resets", ["M_RESET", "V_NEVER"]),
        ("suspectKwh", ["M_JUMP", "V_NEVER"]),
        ("unassignedKwh", ["M_UNASSIGNED", "V_NEVER"]),
        ("implausible", ["M_IMPLAUSIBLE", "V_NEVER"]),
        ("ageS", ["V_NEVER", "V_SILENT", "M_JUMP"]),
    ],
)
async def test_order_is_that_of_a_figure(sort: str, first: list[str], fleet: httpx.AsyncClient) -> None:
    found = [item["id"] for item in (await ask(fleet, sort=sort))["items"]]
    assert (found[: len(first)], len(found)) == (first, 9)


async def test_totals_are_those_of_all_devices(fleet: httpx.AsyncClient) -> None:
    page = await ask(fleet, limit=1)
    assert (page["from"], page["to"], page["asOf"]) == (FOUR_HOURS["from"], FOUR_HOURS["to"], FOUR_HOURS["to"])
    assert page["totals"] == {
        "devices": 9,
        "faulty": 6,
        "silent": 2,
        "neverSeen": 1,
        "resets": 1,
        "suspectKwh": 9324.0,
        "conflicts": 0,
        "implausible": 2,
        "coverage": (9 * 16 - 16 - 4 - 1 - 3) / (9 * 16),
        "unassignedKwh": 16.0,
    }


async def test_site_and_kind_narrow_the_devices(fleet: httpx.AsyncClient) -> None:
    await store(fleet, ac("M_ELSEWHERE", 1.0))
    north = await ask(fleet, site="North")
    assert {item["id"] for item in north["items"]} == {*METERS[:3], "V_GOOD", "V_NEVER", "V_SILENT"}
    assert north["totals"]["devices"] == 6
    south = await ask(fleet, site="=South, 2", kind="meters")
    assert [item["id"] for item in south["items"]] == ["M_JUMP", "M_RESET", "M_UNASSIGNED"]
    vehicles = await ask(fleet, kind="vehicles")
    assert {item["kind"] for item in vehicles["items"]} == {"vehicle"}
    assert vehicles["totals"]["unassignedKwh"] == 0
    everything = await ask(fleet)
    assert (len(everything["items"]), by_id(everything)["M_ELSEWHERE"]["site"]) == (10, None)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"site": "East"}, "no device is declared at the site East"),
        ({"site": "=South, 2", "kind": "vehicles"}, "no vehicle is declared at the site =South, 2"),
    ],
)
async def test_site_without_devices_is_not_found(query: dict[str, str], reason: str, fleet: httpx.AsyncClient) -> None:
    """An empty list would say that nothing is wrong there."""
    assert_problem(await fleet.get(QUALITY, params=query), 404, reason)


# -- pages and CSV


@pytest.mark.parametrize("sort", ORDERS)
async def test_pages_are_the_whole_list_without_repetition(sort: str, fleet: httpx.AsyncClient) -> None:
    whole = (await ask(fleet, sort=sort))["items"]
    assert len(whole) == 9
    for limit in (1, 2, 8, 9):
        assert await paged(fleet, FOUR_HOURS | {"sort": sort, "limit": str(limit)}) == whole


async def test_next_page_is_judged_as_the_first_was(fleet: httpx.AsyncClient) -> None:
    """Readings that arrive between two pages change neither the period nor the ages."""
    now = datetime.now(UTC)
    query: dict[str, Any] = {"limit": 4, "to": format_timestamp(now + timedelta(days=1))}
    whole = (await fleet.get(QUALITY, params=query | {"limit": 9})).json()
    first = (await fleet.get(QUALITY, params=query)).json()
    assert first["nextCursor"] is not None
    stamp = datetime.now(UTC)
    await store(fleet, [reading(VEHICLE, "V_SILENT", stamp, {"kwh_delivered_dc": 1.0})])
    await store(fleet, [reading(METER, meter, stamp, {"voltage": 230.0}) for meter in METERS])
    rest = await paged(fleet, query | {"cursor": first["nextCursor"]})
    assert [item["id"] for item in [*first["items"], *rest]] == [item["id"] for item in whole["items"]]
    second = (await fleet.get(QUALITY, params={"cursor": first["nextCursor"]})).json()
    assert {name: second[name] for name in ("from", "to", "asOf")} == {n: first[n] for n in ("from", "to", "asOf")}
    ages = {item["id"]: item["lastReadingAt"] for item in rest}
    assert format_timestamp(stamp) not in ages.values()


async def test_csv_is_the_whole_list(fleet: httpx.AsyncClient) -> None:
    for sort in ORDERS:
        whole = (await ask(fleet, sort=sort))["items"]
        answer = await fleet.get(
            QUALITY, params=FOUR_HOURS | {"sort": sort, "limit": 2}, headers={"Accept": "text/csv"}
        )
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [_from_csv(row) for row in rows] == whole
        assert list(rows[0]) == list(whole[0])


def _from_csv(row: dict[str, str]) -> dict[str, Any]:
    """The item of a row: empty is null, an apostrophe before a formula is no part of a name, times have six digits."""
    texts = {name: row[name].removeprefix("'") or None for name in ("kind", "id", "site", "lastReadingAt")}
    numbers = {name: float(text) if text else None for name, text in row.items() if name not in texts | {"silent": 0}}
    if (seen_at := texts["lastReadingAt"]) is not None:
        texts["lastReadingAt"] = format_timestamp(parse_timestamp(seen_at))
    return texts | numbers | {"silent": {"true": True, "false": False}[row["silent"]]}


async def test_accept_without_json_or_csv_is_refused(fleet: httpx.AsyncClient) -> None:
    assert_problem(await fleet.get(QUALITY, headers={"Accept": "image/png"}), 406)


# -- what is refused


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"kind": "chargers"}, "kind: Input should be 'vehicles' or 'meters'"),
        ({"sort": "worst"}, "sort: Input should be 'severity', 'coverage'"),
        ({"limit": "0"}, "limit: "),
        ({"limit": "1001"}, "limit: "),
        ({"cursor": "bm8"}, "cursor: is not a nextCursor of this list"),
        ({"order": "coverage"}, "order: unknown parameter; did you mean sort?"),
        ({"start": "2026-02-10T00:00:00Z"}, "start: unknown parameter; did you mean from?"),
        ({"site": "a\nb"}, "site: Input should have at least one character"),
        ({"from": "2026-02-10"}, "from: "),
    ],
)
async def test_wrong_question_is_refused(query: dict[str, str], reason: str, client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(QUALITY, params=query), 422, reason)


async def test_cursor_of_another_list_is_refused(fleet: httpx.AsyncClient) -> None:
    cursor = (await ask(fleet, limit=1))["nextCursor"]
    other_period = FOUR_HOURS | {"to": format_timestamp(at("13:00")), "cursor": cursor}
    assert_problem(await fleet.get(QUALITY, params=other_period), 422, "cursor: is of another period")
    other_order = FOUR_HOURS | {"sort": "coverage", "cursor": cursor}
    assert_problem(await fleet.get(QUALITY, params=other_order), 422, "cursor: is of another order")
    sessions = await fleet.get("/v1/live/meters", params={"limit": 1})
    foreign = {"cursor": sessions.json()["nextCursor"]}
    assert_problem(await fleet.get(QUALITY, params=foreign), 422, "cursor: is not a nextCursor of this list")


async def test_key_without_the_scope_is_refused(api: Api, db: Connection) -> None:
    token = (await keys.create(db, "device", keys.Grant(("ingest",))))[1]
    async with api.client(token) as client:
        assert_problem(await client.get(QUALITY), 403, "read")
    async with api.client() as client:
        assert_problem(await client.get(QUALITY), 401)


async def test_work_of_a_request_is_bounded(client: httpx.AsyncClient) -> None:
    """All devices are read, so more than the bound is refused, and the answer says what to narrow."""
    await declare(client, "vehicles", "North", *(f"V{n}" for n in range(ONE_BY_ONE.readings + 1)))
    await declare(client, "meters", "North", *(f"M{n}" for n in range(ONE_BY_ONE.readings // 90 + 1)))
    whole = assert_problem(await client.get(QUALITY), 422, "site: 406 devices over 1.0 days that the keeper")
    assert "; ask for one site" in whole["detail"]
    site = await client.get(QUALITY, params={"site": "North"})
    assert_problem(site, 422, "kind: ")
    days = {"from": format_timestamp(DAY - timedelta(days=89)), "to": format_timestamp(DAY + timedelta(days=1))}
    meters = {"kind": "meters", "site": "North"}
    long = await client.get(QUALITY, params=meters | days)
    assert_problem(long, 422, f"from: {ONE_BY_ONE.readings // 90 + 1} devices over 90.0 days that the keeper")
    page = await ask(client, **meters)
    assert page["totals"]["devices"] == ONE_BY_ONE.readings // 90 + 1


async def test_faults_are_found_by_keys(fleet: httpx.AsyncClient, database_url: str) -> None:
    period = Period(at("10:00"), at("14:00"))
    ids = ["M_GOOD", "V_GOOD"]
    questions: list[tuple[str, Sequence[object]]] = [(device_faults._CONFLICTS, (period.start, period.end, ids))]
    for kind in KINDS:
        sql, *values = device_faults._devices_query(kind, ids, period, period.end)
        questions.append((sql, values))
        sql = device_faults._sql(device_faults._IMPLAUSIBLE, kind, period.days_sql())
        questions.append((sql, (ids, [1.0, 1.0], period.start, period.end)))
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    for sql, given in questions:
        plan = "\n".join(row[0] for row in await as_api.fetch("EXPLAIN (COSTS OFF) " + sql, *given))
        assert "Index" in plan
        assert "Seq Scan" not in plan, plan
    await as_api.close()
