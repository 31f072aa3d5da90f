"""The device register against the real process and a real database."""

import asyncio
import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from api import keys
from bridge.contract import KINDS, METER, VEHICLE, Kind
from tests.integration.api.server import Api, Connection, assert_problem

pytestmark = pytest.mark.anyio

VEHICLES, METERS = "/v1/devices/vehicles", "/v1/devices/meters"
FULL = {
    "name": "Van 2",
    "site": "Depot Nörd",
    "intervalS": 30.5,
    "ratedKw": 150,
    "timeZone": "Europe/Berlin",
    "tags": ["van", "north"],
}
EMPTY: dict[str, Any] = {**dict.fromkeys(FULL), "tags": []}
CSV = {"Content-Type": "text/csv"}
HEADER = "id,name,site,intervalS,ratedKw,timeZone,tags\r\n"


async def trail(db: Connection) -> list[asyncpg.Record]:
    return await db.fetch("SELECT actor, action, subject, detail FROM audit_log WHERE actor LIKE 'key:%' ORDER BY id")


async def import_csv(client: httpx.AsyncClient, text: str | bytes, path: str = VEHICLES) -> httpx.Response:
    return await client.post(path, content=text, headers=CSV)


async def export_csv(client: httpx.AsyncClient, path: str = VEHICLES, **query: str) -> str:
    answer = await client.get(path, params=query, headers={"Accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return answer.text


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
async def test_declaration_is_created_read_and_replaced(client: httpx.AsyncClient, db: Connection, kind: Kind) -> None:
    path = f"/v1/devices/{kind.plural}/D_1"
    assert_problem(await client.get(path), 404, f"{kind.name} D_1")
    created = await client.put(path, json=FULL)
    assert (created.status_code, created.json()) == (201, {"id": "D_1", **FULL})
    assert (await client.get(path)).json() == created.json()
    assert (await client.put(path, json=created.json())).status_code == 200
    replaced = await client.put(path, json={"name": "other"})
    assert (replaced.status_code, replaced.json()) == (200, {"id": "D_1", **EMPTY, "name": "other"})
    found = await trail(db)
    assert [(row["action"], row["subject"]) for row in found] == [("device.put", f"{kind.name}:D_1")] * 2
    assert json.loads(found[1]["detail"])["before"]["site"] == "Depot Nörd"
    assert await db.fetchval("SELECT count(*) FROM device WHERE kind = $1", kind.name) == 1


async def test_one_id_of_two_kinds_is_two_devices(client: httpx.AsyncClient) -> None:
    await client.put(f"{VEHICLES}/D_1", json={"name": "van"})
    await client.put(f"{METERS}/D_1", json={"name": "meter"})
    assert (await client.get(f"{VEHICLES}/D_1")).json()["name"] == "van"
    assert [item["name"] for item in (await client.get(METERS)).json()["items"]] == ["meter"]


async def test_patch_leaves_what_is_absent_and_clears_what_is_null(client: httpx.AsyncClient, db: Connection) -> None:
    path = f"{VEHICLES}/EV_1"
    assert_problem(await client.patch(path, json={"name": "x"}), 404)
    await client.put(path, json=FULL)
    changed = await client.patch(path, json={"site": None, "tags": None, "ratedKw": 11})
    assert changed.json() == {"id": "EV_1", **FULL, "site": None, "tags": [], "ratedKw": 11}
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await client.patch(path, content=b'{"name": "y"}', headers=merge)).json()["name"] == "y"
    assert (await client.patch(path, json={})).json()["name"] == "y"
    assert [row["action"] for row in await trail(db)] == ["device.put", "device.patch", "device.patch"]


async def test_delete_removes_the_declaration(client: httpx.AsyncClient, db: Connection) -> None:
    await client.put(f"{METERS}/M_1", json=FULL)
    assert (await client.delete(f"{METERS}/M_1")).status_code == 204
    assert_problem(await client.delete(f"{METERS}/M_1"), 404)
    last = (await trail(db))[-1]
    assert (last["action"], last["subject"]) == ("device.delete", "meter:M_1")
    assert json.loads(last["detail"])["before"]["name"] == "Van 2"


@pytest.mark.parametrize(
    ("body", "about"),
    [
        ({"colour": "red"}, "colour: "),
        ({"intervalS": 0}, "intervalS: "),
        ({"intervalS": 86_401}, "intervalS: "),
        ({"intervalS": "60"}, "intervalS: "),
        ({"intervalS": True}, "intervalS: "),
        ({"ratedKw": -1}, "ratedKw: "),
        ({"ratedKw": 100_001}, "ratedKw: "),
        ({"ratedKw": 10**400}, "ratedKw: "),
        ({"timeZone": "Berlin"}, "timeZone: Input should be an IANA time zone"),
        ({"timeZone": "localtime"}, "timeZone: "),
        ({"timeZone": "../../etc/passwd"}, "timeZone: "),
        ({"name": ""}, "name: "),
        ({"name": "x" * 201}, "name: "),
        ({"name": "a\nb"}, "name: "),
        ({"name": "a\0b"}, "name: "),
        ({"site": "\u2028"}, "site: "),
        ({"tags": ["a;b"]}, "tags[0]: "),
        ({"tags": [" a"]}, "tags[0]: "),
        ({"tags": [""]}, "tags[0]: "),
        ({"tags": [f"t{n}" for n in range(51)]}, "tags: "),
        ({"id": "EV_2"}, "id: is not EV_1"),
        ([], "body: "),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_bad_field_is_named(client: httpx.AsyncClient, method: str, body: object, about: str) -> None:
    answer = await client.request(method, f"{VEHICLES}/EV_1", json=body)
    assert_problem(answer, 422, about)
    assert answer.json()["errors"][0]["reason"]


async def test_number_that_json_has_not_and_lone_surrogate_are_422(client: httpx.AsyncClient) -> None:
    for body in (b'{"intervalS": NaN}', b'{"ratedKw": Infinity}', b'{"name": "\\ud800"}'):
        answer = await client.put(f"{VEHICLES}/EV_1", content=body, headers={"Content-Type": "application/json"})
        assert_problem(answer, 422)


async def test_list_is_filtered(client: httpx.AsyncClient) -> None:
    rows = [
        {"id": "EV_1", "name": "Blue van", "site": "A", "tags": ["van", "blue"]},
        {"id": "EV_2", "name": "Red 100% car", "site": "B", "tags": ["car"]},
        {"id": "EV_3", "site": "A", "tags": ["van"]},
    ]
    assert (await client.post(VEHICLES, json=rows)).status_code == 200

    async def ids(**query: str) -> list[str]:
        return [item["id"] for item in (await client.get(VEHICLES, params=query)).json()["items"]]

    assert await ids(site="A") == ["EV_1", "EV_3"]
    assert await ids(tag="van", site="A", q="BLUE") == ["EV_1"]
    assert await ids(q="ev_") == ["EV_1", "EV_2", "EV_3"]
    assert await ids(q="0% c") == ["EV_2"]
    assert await ids(q="_1%") == await ids(site="C") == []
    assert (await export_csv(client, tag="car")).splitlines()[1:] == ["EV_2,Red 100% car,B,,,,car"]
    assert_problem(await client.get(VEHICLES, params={"q": "\0"}), 422, "q: ")


async def test_pages_hold_while_devices_are_declared(client: httpx.AsyncClient) -> None:
    await client.post(VEHICLES, json=[{"id": f"EV_{n:03}"} for n in range(0, 40, 2)])
    seen: list[str] = []
    cursor: str | None = None
    for n in range(100):
        query = {"limit": "3"} | ({} if cursor is None else {"cursor": cursor})
        page = (await client.get(VEHICLES, params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
        await client.put(f"{VEHICLES}/EV_{2 * n + 1:03}", json={})
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert {f"EV_{n:03}" for n in range(0, 40, 2)} <= set(seen)


async def test_csv_round_trip_keeps_every_character(client: httpx.AsyncClient, db: Connection) -> None:
    rows = [
        {"id": "-1", "name": "=SUM(A1)", "site": "'=x", "tags": ["=a", "b c"]},
        {"id": "A", "name": '"q", ä', "site": "+49", "intervalS": 0.1, "ratedKw": 0.0015, "tags": []},
        {"id": "B", "name": "@x", "site": "'plain", "timeZone": "UTC", "tags": ["-"]},
        {"id": "C", "name": "''=", "site": " spaces "},
    ]
    await client.post(METERS, json=rows)
    before = (await client.get(METERS)).json()
    text = await export_csv(client, METERS)
    assert text.startswith(HEADER)
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    await db.execute("DELETE FROM device")
    assert (await import_csv(client, text, METERS)).json()["created"] == 4
    assert (await client.get(METERS)).json() == before
    assert (await import_csv(client, text, METERS)).json() == {"rows": 4, "created": 0, "changed": 0, "unchanged": 4}


async def test_csv_is_the_whole_list(client: httpx.AsyncClient) -> None:
    await client.post(VEHICLES, json=[{"id": f"EV_{n:04}"} for n in range(2_500)])
    lines = (await export_csv(client, limit="1")).splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *(f"EV_{n:04}" for n in range(2_500))]
    assert_problem(await client.get(VEHICLES, headers={"Accept": "image/png"}), 406)


async def test_import_leaves_columns_that_are_absent_and_clears_empty_cells(client: httpx.AsyncClient) -> None:
    await client.put(f"{VEHICLES}/EV_1", json=FULL)
    await import_csv(client, "id,site,tags\nEV_1,,a; b ;;a\nEV_2,S,\n")
    expected = {"id": "EV_1", **FULL, "site": None, "tags": ["a", "b"]}
    assert (await client.get(f"{VEHICLES}/EV_1")).json() == expected
    assert (await client.get(f"{VEHICLES}/EV_2")).json() == {"id": "EV_2", **EMPTY, "site": "S"}
    await client.post(VEHICLES, json=[{"id": "EV_1", "name": None}, {"id": "EV_2", "ratedKw": 22}])
    assert (await client.get(f"{VEHICLES}/EV_1")).json() == expected | {"name": None}
    assert (await client.get(f"{VEHICLES}/EV_2")).json()["ratedKw"] == 22


async def test_import_takes_a_byte_order_mark_gzip_and_quoted_lines(client: httpx.AsyncClient, db: Connection) -> None:
    text = '\ufeffid,name,intervalS\r\n\r\nEV_1,"a ""b"", c",6e1\r\n'
    packed = {**CSV, "Content-Encoding": "gzip"}
    answer = await client.post(VEHICLES, content=gzip.compress(text.encode()), headers=packed)
    assert answer.json() == {"rows": 1, "created": 1, "changed": 0, "unchanged": 0}
    assert (await client.get(f"{VEHICLES}/EV_1")).json()["name"] == 'a "b", c'
    (row,) = await trail(db)
    assert (row["action"], row["subject"]) == ("device.import", "vehicles")
    assert json.loads(row["detail"])["created"] == 1


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (b"", [("body", None)]),
        (b"id,colour,x\nEV_1,,\n", [("colour", 1), ("x", 1)]),
        (b"id,id\nEV_1,EV_2\n", [("id", 1)]),
        (b"name\nx\n", [("id", 1)]),
        (b"id,name\nEV_1\nEV_2,a,b\nEV_3,ok\n", [("row", 2), ("row", 3)]),
        (b'id,name\nEV_1,"a\nb"\nEV 2,x\n', [("name", 2), ("id", 4)]),
        (b"id\nEV_1\n\nEV_2\nEV_1\n", [("id", 5)]),
        (b'id,intervalS\nEV_1,1_0\nEV_2,nan\nEV_3, 5\nEV_4,"1,5"\n', [("intervalS", n) for n in (2, 3, 4, 5)]),
        (b"id,tags\nEV_1," + b";".join(b"t%d" % n for n in range(51)) + b"\n", [("tags", 2)]),
        (b'id,name\nEV_1,"open\n', [("body", 2)]),
        (b"id,name\n,x\n", [("id", 2)]),
        (b"id,name\nEV_1,\xff\n", [("body", None)]),
    ],
)
async def test_bad_csv_names_line_and_field_and_writes_nothing(
    client: httpx.AsyncClient, db: Connection, text: bytes, errors: list[tuple[str, int | None]]
) -> None:
    problem = assert_problem(await import_csv(client, text), 422)
    assert [(e["field"], e.get("line")) for e in problem["errors"]] == errors
    assert await db.fetchval("SELECT count(*) FROM device") == 0
    assert await trail(db) == []


async def test_bad_json_rows_are_named_by_index(client: httpx.AsyncClient, db: Connection) -> None:
    rows = [{"id": "EV_1"}, {"id": "EV_2", "ratedKw": 0, "x": 1}, 7, {}, {"id": "EV_1"}]
    problem = assert_problem(await client.post(VEHICLES, json=rows), 422, "index 1: ratedKw: ")
    assert [(e["index"], e["field"]) for e in problem["errors"]] == [(1, "ratedKw"), (1, "x"), (2, "row"), (3, "id")]
    again = assert_problem(await client.post(VEHICLES, json=[{"id": "EV_1"}] * 2), 422, "is the same as in index 0")
    assert [e["index"] for e in again["errors"]] == [1]
    many = assert_problem(await client.post(VEHICLES, json=[{}] * 5_000), 422)
    assert len(many["errors"]) == 100
    assert await db.fetchval("SELECT count(*) FROM device") == 0


async def test_other_bodies_are_refused(client: httpx.AsyncClient) -> None:
    as_json = {"Content-Type": "application/json"}
    assert_problem(await client.post(VEHICLES, content=b"[", headers=as_json), 400, "not JSON")
    assert_problem(await client.post(VEHICLES, content=b"[" * 1_000_000, headers=as_json), 400, "not JSON")
    assert_problem(await client.post(VEHICLES, content=b"{}", headers=as_json), 422, "body: ")
    assert_problem(await client.post(VEHICLES, content=b"id\n", headers={"Content-Type": "text/plain"}), 415)
    assert_problem(
        await client.post(VEHICLES, content=b"id\n", headers={"Content-Type": "text/csv; charset=cp1252"}), 415
    )
    assert_problem(await client.post(VEHICLES, content=b"x" * 9_000_000, headers=CSV), 413)
    assert_problem(await client.post(VEHICLES, content=b"id\n" + b"A\n" * 100_001, headers=CSV), 413, "100,000 rows")
    assert_problem(await client.put(f"{VEHICLES}/EV_1", content=b"x" * 70_000, headers=as_json), 413)


async def test_large_bodies_share_the_budget_of_ingest(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(http_body_budget_mib=8)
    authorized = f"Host: x\r\nAuthorization: Bearer {token}"
    with api.socket() as slow:
        head = f"POST {VEHICLES} HTTP/1.1\r\n{authorized}\r\nContent-Length: 8000000\r\n\r\n".encode()
        slow.sendall(head + b"[" + b" " * 7_000_000)
        async with api.client(token) as client, asyncio.timeout(10):
            for path in ("/v1/ingest", METERS):
                body, status = b"[" + b" " * 2_000_000 + b"]", 0
                while status != 503:
                    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
                    status = answer.status_code
            assert (await client.put(f"{VEHICLES}/EV_1", json={})).status_code == 201


async def test_ten_thousand_devices_in_one_request(client: httpx.AsyncClient, db: Connection) -> None:
    line = "EV_{0:05},Van {0},Depot {1},60,150,Europe/Berlin,van;north\r\n"
    answer = await import_csv(client, HEADER + "".join(line.format(n, n % 7) for n in range(10_000)))
    assert answer.json() == {"rows": 10_000, "created": 10_000, "changed": 0, "unchanged": 0}
    assert await db.fetchval("SELECT count(*) FROM device") == 10_000


async def test_changes_are_announced(client: httpx.AsyncClient, db: Connection) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    await db.add_listener("fleet_device", lambda *message: heard.put_nowait(message[3]))
    await client.post(METERS, json=[{"id": f"M_{n}"} for n in range(100)])
    assert await asyncio.wait_for(heard.get(), 30) == METER.name
    await client.put(f"{VEHICLES}/EV_1", json={"intervalS": 10})
    assert await asyncio.wait_for(heard.get(), 30) == VEHICLE.name
    await client.put(f"{VEHICLES}/EV_1", json={"intervalS": 10})
    await client.delete(f"{METERS}/M_7")
    assert await asyncio.wait_for(heard.get(), 30) == METER.name
    assert heard.empty()


async def test_reading_needs_read_and_writing_needs_assign(api: Api, db: Connection) -> None:
    requests = [("PUT", f"{VEHICLES}/EV_1"), ("PATCH", f"{VEHICLES}/EV_1"), ("POST", METERS)]
    requests += [("DELETE", f"{VEHICLES}/EV_1"), ("POST", "/v1/assignments")]
    requests += [(method, "/v1/meters/M_1/assignments/2026-02-10T00:00:00Z") for method in ("PATCH", "DELETE")]
    reader = (await keys.create(db, "reader", keys.Grant(("read",))))[1]
    writer = (await keys.create(db, "writer", keys.Grant(("assign",))))[1]
    async with api.client(reader) as client:
        assert (await client.get(VEHICLES)).status_code == 200
        for method, path in requests:
            assert_problem(await client.request(method, path, json={}), 403, "assign")
    async with api.client(writer) as client:
        assert (await client.put(f"{VEHICLES}/EV_1", json={})).status_code == 201
        for path in (VEHICLES, f"{VEHICLES}/EV_1", "/v1/assignments"):
            assert_problem(await client.get(path), 403, "read")
    async with api.client() as client:
        for method, path in [*requests, ("GET", VEHICLES), ("GET", "/v1/assignments")]:
            assert_problem(await client.request(method, path), 401)


async def test_browser_may_patch_and_delete(start_api: Callable[..., Api]) -> None:
    api = start_api(cors_origins="https://fleet.example")
    async with api.client() as client:
        for method in ("PATCH", "DELETE"):
            asked = {"Origin": "https://fleet.example", "Access-Control-Request-Method": method}
            answer = await client.options(f"{VEHICLES}/EV_1", headers=asked)
            assert answer.status_code == 200
            assert method in answer.headers["access-control-allow-methods"]
