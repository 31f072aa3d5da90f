"""Keys that are limited to devices or sites: on every route they see their own, and nothing of others."""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.responses import Response

from api import assignments, devices, keyring, keys, live
from api.app import application
from api.auth import Scope
from api.database import SESSION
from api.groups import own_devices_sql
from api.keys import LIMITABLE
from api.routing import Endpoint, RouteTable
from api.seen import unseen
from api.sight import Sight
from bridge.contract import KINDS, METER, VEHICLE
from bridge.formats.contract_json import encode, encode_many
from bridge.reading import Reading, format_timestamp
from bridge.store.tables import TABLE_OF
from local.postgres import Postgres
from tests.integration.api.server import Api, Connection, assert_problem
from tests.readings import meter, now_minute, vehicle

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
START = now_minute().replace(minute=0) - timedelta(hours=3)
PERIOD = {"from": format_timestamp(START), "to": format_timestamp(START + timedelta(hours=1))}
OWN, FOREIGN, NEVER = "OWN", "FOREIGN", "NEVER"
NAMES = {
    "vehicle": lambda whose: f"EV_{whose}_2",
    "meter": lambda whose: f"METER_{whose}_2",
    "site": lambda whose: f"{whose} Depot",
}
LIMITS: dict[str, dict[str, tuple[str, ...]]] = {
    "prefixes": {"devices": ("EV_OWN*", "METER_OWN*")},
    "kinds": {"devices": ("vehicle:EV_OWN*", "meter:METER_OWN*")},
    "ids": {"devices": tuple(f"{kind}_OWN_{n}" for kind in ("EV", "METER") for n in (1, 2))},
    "site": {"sites": ("OWN Depot",)},
    "both": {"devices": ("vehicle:EV_OWN*",), "sites": ("OWN Depot",)},
}
QUERIES: dict[str, list[dict[str, str]]] = {
    "/v1/analytics/energy": [{"of": of} | PERIOD for of in ("vehicles", "meters", "sites", "fleet")],
    "/v1/analytics/efficiency": [{"of": of} | PERIOD for of in ("sites", "fleet")],
    "/v1/analytics/series/vehicles/{vehicleId}": [{"measure": "soc"} | PERIOD],
    "/v1/analytics/series/meters/{meterId}": [{"measure": "voltage"} | PERIOD],
    "/v1/quality": [PERIOD, {"kind": "meters"} | PERIOD],
}
"""Of routes that cannot be asked without parameters. A new route of this sort fails until it is here."""
ONE_NAME = {"/v1/sessions"}
"""Of whose parameters exactly one must be given."""
ONE_ITEM = {
    "/v1/alarms/{id}": {"id": "900001"},
    "/v1/alarm-rules/{name}": {"name": "silent"},
    "/v1/rejects/{id}": {"id": "00000000-0000-0000-0000-000000900001"},
}
"""Routes about one item that is no device, and the item of the key."""
ENDLESS = {"/v1/live/stream"}
"""Routes whose answer does not end; they have a test of their own (`test_stream.py`)."""


_RAISE = """
INSERT INTO alarm (id, rule, measure, severity, kind, device, value, bound, unit, message)
OVERRIDING SYSTEM VALUE VALUES ($1, 'silent', 'silence', 'info', 'vehicle', $2, 6, 5, 'intervals', '')
"""
_REJECT = """
INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload)
SELECT lpad($1::int::text, 32, '0')::uuid, now(), 'mqtt', 'fleet/vehicle/' || $2::text || '/telemetry', $2, 'not_json',
       '', '?'
"""


async def make(db: Connection, *scopes: Scope, **limits: Any) -> str:
    return (await keys.create(db, "test", keys.Grant(scopes, **limits)))[1]


async def store(client: httpx.AsyncClient, *readings: Reading) -> None:
    answer = await client.post("/v1/ingest", content=encode_many(readings), headers=JSON)
    assert answer.status_code == 201, answer.text


@pytest.fixture
async def fleet(client: httpx.AsyncClient, db: Connection) -> None:
    """Vehicles and meters of a key and of others, at two sites and at none; one meter of the key feeds another's
    vehicle."""
    for whose in (OWN, FOREIGN):
        rows = [{"id": f"{{}}_{whose}_{n}", "site": f"{whose} Depot", "name": f"{whose} {n}"} for n in (1, 2)]
        for kind, prefix in ((VEHICLE, "EV"), (METER, "METER")):
            declared = [row | {"id": row["id"].format(prefix)} for row in rows]
            assert (await client.post(f"/v1/devices/{kind.plural}", json=declared)).status_code == 200
    fed = {"METER_OWN_1": "EV_OWN_1", "METER_OWN_2": "EV_FOREIGN_1", "METER_FOREIGN_1": "EV_FOREIGN_3"}
    times = {"from": format_timestamp(START), "to": format_timestamp(START + timedelta(minutes=40))}
    assigned = [{"meterId": m, "vehicleId": v} | times for m, v in fed.items()]
    assert (await client.post("/v1/assignments", json=assigned)).status_code == 200
    names = [f"{whose}_{n}" for whose in (OWN, FOREIGN) for n in (1, 2)] + ["FOREIGN_3"]
    minutes = [START + timedelta(minutes=n) for n in range(30)]
    await store(client, *(vehicle(f"EV_{name}", at) for name in names for at in minutes))
    await store(client, *(meter(f"METER_{name}", at, kwh=1.0) for name in names for at in minutes))
    for statement in (_RAISE, _REJECT):
        await db.executemany(statement, [(900_001, f"EV_{OWN}_1"), (900_002, f"EV_{FOREIGN}_1")])


def routes() -> list[Endpoint]:
    """Every route that a limited key may call, but ingest."""
    endpoints = RouteTable(application(Response()).routes).endpoints()
    found = [e for method, e in endpoints if method == "GET" and e.access in (*LIMITABLE, "any key")]
    assert len(found) >= 20
    return [endpoint for endpoint in found if endpoint.path not in ENDLESS]


def request_of(endpoint: Endpoint, query: Mapping[str, str], **named: str) -> httpx.URL:
    """A request that names the key's own devices in its path, or those in `named`."""
    path, in_query = endpoint.path, dict(query)
    for name, kind in endpoint.limited.names.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", named.pop(name, NAMES[kind](OWN)))
    for name, value in ONE_ITEM.get(endpoint.path, {}).items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{path}: give the parameter a value here"
    return httpx.URL(path, params=in_query | named)


def requests_of(endpoint: Endpoint) -> list[httpx.URL]:
    if endpoint.path in ONE_NAME:
        return [request_of(endpoint, PERIOD, **{n: NAMES[kind](OWN)}) for n, kind in endpoint.limited.names.items()]
    return [request_of(endpoint, query) for query in QUERIES.get(endpoint.path, [{}])]


@pytest.mark.parametrize("endpoint", routes(), ids=lambda endpoint: endpoint.path)
@pytest.mark.usefixtures("fleet")
async def test_limited_key_sees_its_own_and_nothing_else(
    api: Api, client: httpx.AsyncClient, db: Connection, endpoint: Endpoint
) -> None:
    wholes = [await client.get(url) for url in requests_of(endpoint)]
    for limits in LIMITS.values():
        async with api.client(await make(db, "read", **limits)) as own:
            for url, whole in zip(requests_of(endpoint), wholes, strict=True):
                answer = await own.get(url)
                names_site = "site" in url.params
                if endpoint.limited.gets == "nothing" or (names_site and "sites" not in limits):
                    assert_problem(answer, 403)
                    continue
                assert answer.status_code == whole.status_code == 200, answer.text
                assert FOREIGN not in answer.text
                if endpoint.limited.gets == "seen" and url.params.get("of") != "fleet":
                    is_empty = url.params.get("of") == "sites" and "sites" not in limits
                    assert (OWN in answer.text) != is_empty
                    is_own = (endpoint.path in ONE_NAME and "vehicle" in url.params) or endpoint.path in ONE_ITEM
                    assert (FOREIGN in whole.text) != is_own, "else the test compares nothing"
                as_csv = await own.get(url, headers={"Accept": "text/csv"})
                assert as_csv.status_code in (200, 406)
                assert FOREIGN not in as_csv.text


@pytest.mark.parametrize("endpoint", routes(), ids=lambda endpoint: endpoint.path)
@pytest.mark.usefixtures("fleet")
async def test_what_a_limited_key_does_not_see_is_the_same_as_what_does_not_exist(
    api: Api, client: httpx.AsyncClient, db: Connection, endpoint: Endpoint
) -> None:
    query = QUERIES.get(endpoint.path, [{}])[0]
    for limits in LIMITS.values():
        async with api.client(await make(db, "read", **limits)) as own:
            for name, kind in endpoint.limited.names.items():
                foreign, never = (
                    request_of(endpoint, query, **{name: NAMES[kind](whose)}) for whose in (FOREIGN, NEVER)
                )
                refused = await own.get(foreign)
                problem = assert_problem(refused, 403, f"{name}: is not a {kind} that the API key is limited to")
                assert [error["field"] for error in problem["errors"]] == [name]
                assert (await own.get(never)).content == refused.content
                assert (await client.get(foreign)).status_code == 200
                assert (await client.get(never)).status_code in (200, 404)


@pytest.mark.usefixtures("fleet")
async def test_ids_of_energy_are_among_those_that_the_key_sees(api: Api, db: Connection) -> None:
    for limits in LIMITS.values():
        async with api.client(await make(db, "read", **limits)) as own:
            for of, prefix in (("vehicles", "EV"), ("meters", "METER")):
                query = {"of": of, "id": f"{prefix}_OWN_1,{prefix}_OWN_2"} | PERIOD
                answer = await own.get("/v1/analytics/energy", params=query)
                assert [item["id"] for item in answer.json()["items"]] == [f"{prefix}_OWN_1", f"{prefix}_OWN_2"]
                refused = []
                for whose in (FOREIGN, NEVER):
                    query["id"] = f"{prefix}_OWN_1,{prefix}_{whose}_1"
                    refused.append(await own.get("/v1/analytics/energy", params=query))
                    assert_problem(refused[-1], 403, "id: ")
                assert refused[0].content == refused[1].content


@pytest.mark.usefixtures("fleet")
async def test_fleet_of_a_limited_key_is_the_sum_of_its_devices(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    async def energy(asking: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await asking.get("/v1/analytics/energy", params=query | PERIOD)).json()["items"]
        return items

    every_own = await energy(client, of="sites", site="OWN Depot")
    for limits in LIMITS.values():
        async with api.client(await make(db, "read", **limits)) as own:
            (item,) = await energy(own, of="fleet")
            assert item == every_own[0] | {"id": None}
            sites = await energy(own, of="sites")
            assert sites == (every_own if "sites" in limits else [])
            totals = (await own.get("/v1/quality", params=PERIOD)).json()["totals"]
            assert (totals["devices"], totals["neverSeen"]) == (4, 0)
    (whole,) = await energy(client, of="fleet")
    assert whole["kwhAc"] > 2 * every_own[0]["kwhAc"]


@pytest.mark.usefixtures("fleet")
async def test_vehicle_is_seen_with_the_energy_of_another_ones_meter(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    rows = [{"meterId": "METER_FOREIGN_2", "vehicleId": "EV_OWN_2", "from": format_timestamp(START)}]
    assert (await client.post("/v1/assignments", json=rows)).status_code == 200
    asked = {
        "/v1/analytics/performance/EV_OWN_2": {},
        "/v1/vehicles/EV_OWN_2/assignments": {},
        "/v1/analytics/energy": {"of": "vehicles", "id": "EV_OWN_2"},
    }
    async with api.client(await make(db, "read", devices=("EV_OWN_2",))) as driver:
        for path, query in asked.items():
            params = query | ({} if "assignments" in path else PERIOD)
            answer = await driver.get(path, params=params)
            assert answer.status_code == 200
            assert answer.json() == (await client.get(path, params=params)).json()
        (session,) = (await driver.get("/v1/sessions", params={"vehicle": "EV_OWN_2"} | PERIOD)).json()["items"]
        (whole,) = (await client.get("/v1/sessions", params={"vehicle": "EV_OWN_2"} | PERIOD)).json()["items"]
        assert session["meterIds"] == ["METER_FOREIGN_2"]
        assert session == whole | {"site": None}
        assert [row["meterId"] for row in (await driver.get("/v1/assignments")).json()["items"]] == ["METER_FOREIGN_2"]
        assert_problem(await driver.get("/v1/live/meters/METER_FOREIGN_2"), 403, "meterId")


@pytest.mark.usefixtures("fleet")
async def test_session_of_a_vehicle_that_the_key_does_not_see_is_that_of_the_meter_alone(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    query = {"meter": "METER_OWN_2"} | PERIOD
    (whole,) = (await client.get("/v1/sessions", params=query)).json()["items"]
    assert (whole["vehicleId"], whole["kwhDc"] is None) == ("EV_FOREIGN_1", False)
    async with api.client(await make(db, "read", devices=("METER_OWN_2",))) as own:
        (session,) = (await own.get("/v1/sessions", params=query)).json()["items"]
        assert (session["vehicleId"], session["meterIds"]) == (None, ["METER_OWN_2"])
        assert [session[name] for name in ("kwhDc", "socFrom", "socTo", "odometerKm", "efficiency")] == [None] * 5
        assert (session["kwhAc"], session["site"]) == (whole["kwhAc"], "OWN Depot")
        path = "/v1/meters/METER_OWN_2/assignments"
        assert [row["vehicleId"] for row in (await own.get(path)).json()["items"]] == [None]
        end = format_timestamp(START + timedelta(minutes=20))
        assert (await client.put(f"{path}/{end}?replace=true", json={"vehicleId": None})).status_code == 201
        assert [row["vehicleId"] for row in (await own.get(path)).json()["items"]] == [None, None]
        assert len((await client.get(path)).json()["items"]) == 3
        halves = (await own.get("/v1/sessions", params=query)).json()["items"]
    assert sum(item["kwhAc"] for item in halves) == whole["kwhAc"]


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


LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/live/vehicles": ({}, "vehicleId"),
    "/v1/live/meters": ({}, "meterId"),
    "/v1/devices/vehicles": ({"tag": "even"}, "id"),
    "/v1/devices/meters": ({}, "id"),
    "/v1/assignments": ({}, "vehicleId"),
    "/v1/analytics/energy": ({"of": "vehicles"} | PERIOD, "id"),
    "/v1/quality": ({"kind": "vehicles", "sort": "conflicts"} | PERIOD, "id"),
}


async def declare_many(client: httpx.AsyncClient, count: int) -> None:
    """Vehicles and meters 000, 001, ...: every third one at the site, every second one tagged, each with a reading."""
    for kind, prefix in ((VEHICLE, "EV"), (METER, "METER")):
        rows = [
            {
                "id": f"{prefix}_{n:03}",
                "site": "OWN Depot" if n % 3 == 0 else "Elsewhere" if n % 3 == 1 else None,
                "tags": ["even"] if n % 2 == 0 else [],
            }
            for n in range(count)
        ]
        assert (await client.post(f"/v1/devices/{kind.plural}", json=rows)).status_code == 200
    begin = format_timestamp(START)
    fed = [{"meterId": f"METER_{n:03}", "vehicleId": f"EV_{n:03}", "from": begin} for n in range(count)]
    assert (await client.post("/v1/assignments", json=fed)).status_code == 200
    await store(
        client, *(make(f"{p}_{n:03}", START) for make, p in ((vehicle, "EV"), (meter, "METER")) for n in range(count))
    )


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("limits", "is_own"),
    [
        ({"sites": ("OWN Depot",)}, lambda n: n % 3 == 0),
        ({"devices": ("EV_01*", "METER_01*")}, lambda n: n // 10 == 1),
        ({"devices": ("EV_01*", "METER_01*", "EV_015", "METER_015"), "sites": ("OWN Depot", "Nowhere")},
         lambda n: n // 10 == 1 or n % 3 == 0),
        ({"devices": ("vehicle:EV_007", "meter:METER_007", "meter:EV_*")}, lambda n: n == 7),
        ({"sites": ("Nowhere",)}, lambda _: False),
    ],
)  # fmt: skip
async def test_pages_of_a_limited_key_are_full_and_hold_each_of_its_devices_once(
    api: Api,
    client: httpx.AsyncClient,
    db: Connection,
    path: str,
    limits: dict[str, tuple[str, ...]],
    is_own: Callable[[int], bool],
) -> None:
    await declare_many(client, 40)
    query, name = LISTS[path]
    numbers = [n for n in range(40) if is_own(n) and ("tag" not in query or n % 2 == 0)]
    async with api.client(await make(db, "read", **limits)) as own:
        found = await pages(own, path, limit=4, **query)
        text = (await own.get(path, params=query, headers={"Accept": "text/csv"})).text
    assert [int(item[name][-3:]) for page in found for item in page] == numbers
    assert [len(page) for page in found[:-1]] == [4] * (max(0, len(numbers) - 1) // 4)
    assert len(text.splitlines()) == 1 + len(numbers)


async def test_device_is_seen_where_it_is_declared_now(api: Api, client: httpx.AsyncClient, db: Connection) -> None:
    await store(client, vehicle("EV_1", START))
    tokens = {site: await make(db, "ingest", "read", sites=(site,)) for site in ("North", "South")}

    async def answers(token: str) -> tuple[int, int, int, int]:
        headers = {"Authorization": f"Bearer {token}"}
        one = await client.get("/v1/live/vehicles/EV_1", headers=headers)
        past = await client.get("/v1/history/vehicles/EV_1", params=PERIOD, headers=headers)
        every = await client.get("/v1/live/vehicles", headers=headers)
        sent = await client.post("/v1/ingest", content=encode(vehicle("EV_1", START)), headers=JSON | headers)
        return one.status_code, past.status_code, len(every.json()["items"]), sent.status_code

    none = (403, 403, 0, 403)
    assert [await answers(token) for token in tokens.values()] == [none, none]
    for site, other in (("North", "South"), ("South", "North")):
        assert (await client.put("/v1/devices/vehicles/EV_1", json={"site": site})).status_code in (200, 201)
        assert await answers(tokens[site]) == (200, 200, 1, 201)
        assert await answers(tokens[other]) == none
    assert (await client.delete("/v1/devices/vehicles/EV_1")).status_code == 204
    assert [await answers(token) for token in tokens.values()] == [none, none]


async def test_key_with_sites_sends_readings_of_their_devices(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    for kind, id_, site in (("vehicles", "EV_1", "North"), ("meters", "METER_1", "North"), ("meters", "EV_2", "North")):
        assert (await client.put(f"/v1/devices/{kind}/{id_}", json={"site": site})).status_code == 201
    token = await make(db, "ingest", sites=("North",), devices=("vehicle:EV_3",))
    sent = [vehicle("EV_1"), meter("METER_1"), vehicle("EV_2"), vehicle("EV_3"), meter("EV_3"), meter("METER_2")]
    async with api.client(token) as own:
        answer = await own.post("/v1/ingest", content=encode_many(sent), headers=JSON)
        assert answer.status_code == 207
        assert answer.json()["stored"] == 3
        assert [r["index"] for r in answer.json()["rejected"]] == [2, 4, 5]
        assert all(r["reason"].startswith("forbidden") for r in answer.json()["rejected"])
        late = {"vehicleId": "EV_1", "soc": 5, "timestamp": "2001-01-01T00:00:00Z"}
        assert_problem(await own.post("/v1/ingest", json=late), 422, "timestamp_out_of_range")
        assert_problem(await own.post("/v1/ingest", json=late | {"vehicleId": "EV_2"}), 403, "forbidden")
        assert_problem(await own.post("/v1/ingest", json=late | {"vehicleId": "not an id"}), 422)
        assert_problem(await own.get("/v1/live/vehicles/EV_1"), 403, "scope read")
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 2


WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND l.relation = 'device'::regclass AND a.application_name = 'fleet-api'
"""


async def test_register_is_asked_for_keys_with_sites_only(
    api: Api, client: httpx.AsyncClient, db: Connection, database_url: str
) -> None:
    """While the register is locked, a process that asks it waits."""
    assert (await client.put("/v1/devices/vehicles/EV_1", json={"site": "North"})).status_code == 201
    await store(client, vehicle("EV_1"))
    unlimited, of_device = await make(db, "ingest"), await make(db, "ingest", "read", devices=("EV_1",))
    of_site = await make(db, "ingest", sites=("North",))
    body = encode(vehicle("EV_1"))

    async def post(token: str) -> int:
        headers = JSON | {"Authorization": f"Bearer {token}"}
        return (await client.post("/v1/ingest", content=body, headers=headers)).status_code

    locking = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(20), locking.transaction():
            await locking.execute("LOCK TABLE device IN ACCESS EXCLUSIVE MODE")
            assert await post(unlimited) == 201
            assert await post(of_device) == 201
            headers = {"Authorization": f"Bearer {of_device}"}
            assert (await client.get("/v1/history/vehicles/EV_1", headers=headers)).status_code == 200
            assert (await client.get("/v1/history/vehicles/EV_2", headers=headers)).status_code == 403
            assert await db.fetchval(WAITING) == 0
            asked = asyncio.create_task(post(of_site))
            while not await db.fetchval(WAITING):
                assert not asked.done()
    finally:
        await locking.close()
    assert await asked == 201


async def test_change_of_a_keys_limits_is_effective_at_once(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    await store(client, vehicle("EV_1"), vehicle("EV_2"))
    effective_after_s: list[float] = []
    for _ in range(5):
        token = await make(db, "read", sites=("North",))
        async with api.client(token) as own:
            assert (await own.get("/v1/live/vehicles")).json()["items"] == []
            await db.execute("UPDATE api_key SET sites = NULL, devices = '{EV_1}' WHERE id = $1", token.split("_")[1])
            began = time.monotonic()
            while len((await own.get("/v1/live/vehicles")).json()["items"]) != 1:
                assert time.monotonic() - began < 20
            effective_after_s.append(time.monotonic() - began)
    assert statistics.median(effective_after_s) < keyring.REMEMBERED_S / 2


async def test_limited_key_with_other_scopes_is_refused_what_is_not_limited(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    """Such a key cannot be created, but a row of the database may say anything."""
    token = await make(db, "read", devices=("EV_1",))
    await db.execute("UPDATE api_key SET scopes = '{admin}' WHERE id = $1", token.split("_")[1])
    async with api.client(token) as own:
        assert_problem(await own.put("/v1/devices/vehicles/EV_1", json={"name": "x"}), 403, "closed")
        assert_problem(await own.post("/v1/assignments", json=[]), 403, "closed")
        assert_problem(await own.get("/metrics"), 403, "closed")
        assert_problem(await own.get("/v1/live/vehicles/EV_2"), 403, "vehicleId")


async def test_any_limits_and_any_devices_agree_with_the_rule(db: Connection, login_url: str) -> None:
    """Conditions, ids found by keys and the look-up, of drawn keys, against `Sight.sees`."""
    draw = random.Random(20260210)
    names = ["".join(draw.choices("Aa0_-", k=draw.randint(1, 3))) for _ in range(60)]
    sites = ["North", "South", 'Ünder\'s "site"']
    known = {(kind.name, name): draw.choice([*sites, None]) for kind in KINDS for name in names}
    rows = [(kind, name, site) for (kind, name), site in known.items()]
    await db.executemany("INSERT INTO device (kind, id, site) VALUES ($1, $2, $3)", rows)
    pool = await asyncpg.create_pool(login_url, min_size=0, max_size=1)
    try:
        for _ in range(150):
            patterns = [
                draw.choice(["", "vehicle:", "meter:"])
                + draw.choice(names)[: draw.randint(1, 3)]
                + draw.choice(["", "*"])
                for _ in range(draw.randint(1, 3))
            ]
            own_sites = tuple(draw.sample(sites, draw.randint(0, 2))) or None
            sight = Sight(tuple(patterns) if draw.random() < 0.7 or own_sites is None else None, own_sites)
            expected = {(kind, name) for (kind, name), site in known.items() if sight.sees(kind, name, site)}
            condition = sight.condition("t.kind", "t.id", first=1)
            tested = await db.fetch(f"SELECT kind, id FROM device AS t WHERE {condition}", *sight.arguments)
            assert {tuple(row) for row in tested} == expected, sight
            found = [
                (kind.name, row[0])
                for kind in KINDS
                for row in await db.fetch(own_devices_sql(kind), "", 1_000, *sight.arguments)
            ]
            assert sorted(found) == sorted(expected), sight
            assert await unseen(pool, sight, list(known)) == known.keys() - expected
    finally:
        await pool.close()


COUNT = 10_000


async def read_rows(db: Connection, sql: str, *arguments: object) -> tuple[int, int, str]:
    """The rows that a statement returns and that it reads from tables and indexes, and its plan: the generic one."""
    await db.execute(f"PREPARE asked AS {sql}")
    given = ", ".join(map(_literal, arguments))
    plan = json.loads(await db.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked ({given})"))[0]["Plan"]
    await db.execute("DEALLOCATE asked")
    text = json.dumps(plan, indent=1)
    return plan["Actual Rows"], round(sum(_scanned(plan))), text


def _literal(argument: object) -> str:
    if isinstance(argument, list):
        return f"ARRAY[{', '.join(map(_literal, argument))}]::text[]"
    return f"'{argument}'"


def _scanned(plan: dict[str, Any]) -> Iterable[float]:
    if "Relation Name" in plan:
        removed = sum(value for name, value in plan.items() if name.startswith("Rows Removed by"))
        yield (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    for part in plan.get("Plans", ()):
        yield from _scanned(part)


@pytest.mark.parametrize(
    ("sight", "most"),
    [
        (Sight(devices=("EV_00100", "METER_00100", "EV_0020*", "METER_0020*")), 11),
        (Sight(sites=("Depot 7",)), 10),
        (Sight(devices=("EV_0*", "METER_0*")), COUNT),
    ],
    ids=["patterns", "site", "all"],
)
async def test_lists_of_a_limited_key_are_found_by_keys(
    db: Connection, database_url: str, postgres: Postgres, sight: Sight, most: int
) -> None:
    # As new tables: what autovacuum counted while another test emptied them would be believed of what is inserted.
    await db.execute("TRUNCATE vehicle_live_status, meter_live_status, device, meter_assignment")
    for kind, prefix in ((VEHICLE, "EV"), (METER, "METER")):
        table = TABLE_OF[kind]
        await db.execute(
            f"INSERT INTO {table.live} ({table.device_column}, ts, received_at) "
            f"SELECT '{prefix}_' || lpad(n::text, 5, '0'), now(), now() FROM generate_series(0, {COUNT - 1}) AS n"
        )
        await db.execute(
            f"INSERT INTO device (kind, id, site) SELECT '{kind.name}', {table.device_column}, "
            f"'Depot ' || (right({table.device_column}, 5)::int / 10) FROM {table.live}"
        )
    await db.execute(
        "INSERT INTO meter_assignment SELECT m.id, now(), 'EV' || right(m.id, 6) FROM device AS m WHERE kind = 'meter'"
    )
    as_api = await asyncpg.connect(database_url, server_settings=SESSION)
    try:
        for is_analyzed in (False, True):
            if is_analyzed:
                postgres.sql("VACUUM ANALYZE vehicle_live_status, meter_live_status, device, meter_assignment", "api")
            limit = 100
            statements: dict[str, tuple[Any, ...]] = {
                **{f"live {kind.name}": (live.page_sql(TABLE_OF[kind], sight), "", limit, 60.0) for kind in KINDS},
                **{
                    f"register {kind.name}": (devices.page_sql(kind, sight, ["q"]), kind.name, "", limit, "_")
                    for kind in KINDS
                },
                **{f"devices {kind.name}": (own_devices_sql(kind), "", limit) for kind in KINDS},
                "assignments": (assignments.page_sql(sight, [], is_following=False), limit),
            }
            for name, (sql, *arguments) in statements.items():
                found, read, plan = await read_rows(as_api, sql, *arguments, *sight.arguments)
                assert found == min(most, limit), name
                assert "Seq Scan" not in plan, f"{name}\n{plan}"
                assert "Bitmap" not in plan, f"{name}\n{plan}"
                bound = 6 * COUNT if name == "assignments" else 6 * limit
                assert read <= min(12 * most, bound), f"{name}: {read} rows\n{plan}"
    finally:
        await as_api.close()
