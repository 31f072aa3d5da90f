"""API keys over HTTP: create, list, rotate and revoke as an administrator, and what a key may know of itself."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api import keys
from api.auth import Scope, token_hash
from tests.integration.api.server import Api, Connection, assert_problem

pytestmark = pytest.mark.anyio

UNKNOWN = "aaaaaaaaaaaa"


@pytest.fixture
async def admin_id(db: Connection) -> tuple[str, str]:
    """The id and the whole of an administrator's key."""
    return await keys.create(db, "root", keys.Grant(("admin",)))


@pytest.fixture
async def admin(api: Api, admin_id: tuple[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(admin_id[1]) as client:
        yield client


async def create(admin: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await admin.post("/v1/keys", json={"name": "depot", "scopes": ["read"]} | body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_created_key_is_in_the_answer_once_and_works(
    api: Api, admin: httpx.AsyncClient, db: Connection, admin_id: tuple[str, str]
) -> None:
    limits = {"devices": ["EV_7*", "meter:METER_1"], "sites": ["Depot North"]}
    created = await create(admin, scopes=["read", "ingest"], lifetimeS=3600, **limits)
    token = created.pop("key")
    assert re.fullmatch(rf"fleet_{created['id']}_[\w-]{{43}}", token)
    assert (created["name"], created["scopes"]) == ("depot", ["ingest", "read"])
    assert {name: created[name] for name in limits} == limits
    assert (created["revokedAt"], created["lastUsedAt"], created["replaces"]) == (None, None, None)
    remaining = datetime.fromisoformat(created["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < remaining <= timedelta(hours=1)
    assert (await admin.get(f"/v1/keys/{created['id']}")).json() == created
    listed = await admin.get("/v1/keys")
    assert created in listed.json()["items"]
    for secret in (token.split("_", 2)[2], token_hash(token).hex()):
        assert secret not in listed.text
    async with api.client(token) as client:
        assert (await client.get("/v1/live/vehicles")).status_code == 200
        assert_problem(await client.get("/v1/live/vehicles/EV_1"), 403, "vehicleId")
        assert_problem(await client.get("/v1/keys"), 403, "scope admin")
    row = await db.fetchrow(
        "SELECT actor, subject, detail FROM audit_log WHERE action = 'key.create' AND actor LIKE 'key:%'"
    )
    assert row is not None
    assert (row["actor"], row["subject"]) == (f"key:{admin_id[0]}", f"key:{created['id']}")
    assert json.loads(row["detail"]) == {"name": "depot", "scopes": ["ingest", "read"]} | limits
    assert token.split("_", 2)[2] not in str(await db.fetch("SELECT detail FROM audit_log"))


async def test_every_valid_key_may_ask_about_itself(api: Api, admin: httpx.AsyncClient) -> None:
    grants: list[dict[str, Any]] = [{"scopes": [scope]} for scope in keys.SCOPES]
    grants += [{"scopes": ["ingest"], "devices": ["EV_1"]}, {"scopes": ["read"], "sites": ["North"], "lifetimeS": 60}]
    for grant in grants:
        created = await create(admin, **grant)
        async with api.client(created["key"]) as client:
            answer = await client.get("/v1/keys/me")
        assert answer.status_code == 200
        shown = ("id", "name", "scopes", "devices", "sites", "expiresAt")
        assert answer.json() == {name: created[name] for name in shown}
    async with api.client() as client:
        assert_problem(await client.get("/v1/keys/me"), 401)
    assert_problem(await admin.delete("/v1/keys/me"), 405)


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": None}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": ["assign"], "devices": ["EV_1"]}, "can only have the scopes ingest and read"),
        ({"scopes": ["admin"], "sites": ["North"]}, "can only have the scopes ingest and read"),
        ({"devices": []}, "devices"),
        ({"devices": ["*"]}, "devices"),
        ({"devices": ["car:EV_1"]}, "devices"),
        ({"devices": ["EV_1\n"]}, "devices"),
        ({"devices": "EV_1"}, "devices"),
        ({"devices": [f"EV_{n}" for n in range(1_001)]}, "devices"),
        ({"sites": []}, "sites"),
        ({"sites": ["a\0b"]}, "sites"),
        ({"sites": ["x" * 201]}, "sites"),
        ({"lifetimeS": 0}, "lifetimeS"),
        ({"lifetimeS": 10**12}, "lifetimeS"),
        ({"lifetime": 5}, "lifetime"),
    ],
)
async def test_key_that_makes_no_sense_is_refused_and_leaves_nothing(
    admin: httpx.AsyncClient, db: Connection, changed: dict[str, Any], about: str
) -> None:
    answer = await admin.post("/v1/keys", json={"name": "x", "scopes": ["read"]} | changed)
    assert_problem(answer, 422, about)
    assert await db.fetchval("SELECT count(*) FROM api_key") == 1
    assert await db.fetchval("SELECT count(*) FROM audit_log") == 1


async def test_list_has_every_key_once_in_the_order_of_creation(admin: httpx.AsyncClient, db: Connection) -> None:
    ids = [await db.fetchval("SELECT id FROM api_key")]
    ids += [(await create(admin, name=f"key {n}"))["id"] for n in range(8)]
    async with db.transaction():  # Created at one instant.
        ids += sorted([(await keys.create(db, "at once", keys.Grant(("read",))))[0] for _ in range(6)])
    found: list[str] = []
    query: dict[str, Any] = {"limit": 4}
    while True:
        answer = await admin.get("/v1/keys", params=query)
        page = answer.json()
        found += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        assert len(page["items"]) == 4
        assert answer.headers["x-next-cursor"] == page["nextCursor"]
        query["cursor"] = page["nextCursor"]
    assert found == ids
    assert_problem(await admin.get("/v1/keys", params={"cursor": "x"}), 422, "cursor")


async def test_rotated_key_has_a_successor_with_its_rights(
    api: Api, admin: httpx.AsyncClient, db: Connection, admin_id: tuple[str, str]
) -> None:
    old = await create(admin, scopes=["read"], sites=["North"], devices=["EV_1"])
    answer = await admin.post(f"/v1/keys/{old['id']}/rotate", json={"overlapS": 3600})
    assert answer.status_code == 201
    new = answer.json()
    assert new["replaces"] == old["id"]
    assert [new[name] for name in ("name", "scopes", "devices", "sites")] == ["depot", ["read"], ["EV_1"], ["North"]]
    async with api.client() as client:
        for token in (old["key"], new["key"]):
            assert (await client.get("/v1/live/vehicles", headers=bearer(token))).status_code == 200
        ended = (await admin.post(f"/v1/keys/{new['id']}/rotate", json={"overlapS": 0})).json()
        assert_problem(await client.get("/v1/live/vehicles", headers=bearer(new["key"])), 401, "expired")
        assert (await client.get("/v1/live/vehicles", headers=bearer(ended["key"]))).status_code == 200
    default = (await admin.post(f"/v1/keys/{ended['id']}/rotate", json={})).json()
    lapse = datetime.fromisoformat((await admin.get(f"/v1/keys/{ended['id']}")).json()["expiresAt"])
    assert timedelta(hours=23) < lapse - datetime.now(UTC) <= timedelta(days=1)
    trail = await db.fetch("SELECT actor, subject, detail FROM audit_log WHERE action = 'key.rotate' ORDER BY id")
    assert {row["actor"] for row in trail} == {f"key:{admin_id[0]}"}
    assert [json.loads(row["detail"])["successor"] for row in trail] == [new["id"], ended["id"], default["id"]]
    assert_problem(await admin.post(f"/v1/keys/{UNKNOWN}/rotate", json={}), 404)
    assert_problem(await admin.post(f"/v1/keys/{old['id']}/rotate", json={"overlapS": -1}), 422, "overlapS")


async def test_successor_expires_when_the_key_would_have_unless_it_has_a_lifetime(admin: httpx.AsyncClient) -> None:
    async def rotated(id_: str, **more: object) -> dict[str, Any]:
        answer = await admin.post(f"/v1/keys/{id_}/rotate", json={"overlapS": 60, **more})
        assert answer.status_code == 201
        successor: dict[str, Any] = answer.json()
        return successor

    old = await create(admin, lifetimeS=7_200)
    assert (await rotated(old["id"]))["expiresAt"] == old["expiresAt"]
    assert (await rotated(old["id"]))["expiresAt"] == old["expiresAt"]  # not the end of the overlap
    longer = await rotated(old["id"], lifetimeS=86_400)
    assert datetime.fromisoformat(longer["expiresAt"]) - datetime.now(UTC) > timedelta(hours=23)


async def test_revoked_key_is_refused_at_once_and_stays_in_the_list(
    api: Api, admin: httpx.AsyncClient, db: Connection, admin_id: tuple[str, str]
) -> None:
    created = await create(admin)
    async with api.client(created["key"]) as client:
        assert (await client.get("/v1/live/vehicles")).status_code == 200
        assert (await admin.delete(f"/v1/keys/{created['id']}")).status_code == 204
        while (answer := await client.get("/v1/live/vehicles")).status_code == 200:
            pass
        assert_problem(answer, 401, "revoked")
    shown = (await admin.get(f"/v1/keys/{created['id']}")).json()
    assert shown["revokedAt"] is not None
    assert shown["id"] in [item["id"] for item in (await admin.get("/v1/keys")).json()["items"]]
    assert_problem(await admin.delete(f"/v1/keys/{created['id']}"), 404, "no valid key")
    assert_problem(await admin.post(f"/v1/keys/{created['id']}/rotate", json={}), 404, "no valid key")
    actor = await db.fetchval("SELECT actor FROM audit_log WHERE action = 'key.revoke'")
    assert actor == f"key:{admin_id[0]}"
    for method, path in (("GET", ""), ("DELETE", "")):
        assert_problem(await admin.request(method, f"/v1/keys/{UNKNOWN}{path}"), 404)
    assert_problem(await admin.get("/v1/keys/No"), 422, "id")


@pytest.mark.parametrize("scope", ["ingest", "read", "assign"])
async def test_keys_are_managed_by_administrators_only(api: Api, db: Connection, scope: Scope) -> None:
    id_, token = await keys.create(db, "x", keys.Grant((scope,)))
    async with api.client(token) as client:
        asked = {
            "list": await client.get("/v1/keys"),
            "get": await client.get(f"/v1/keys/{id_}"),
            "create": await client.post("/v1/keys", json={"name": "x", "scopes": ["admin"]}),
            "rotate": await client.post(f"/v1/keys/{id_}/rotate", json={}),
            "revoke": await client.delete(f"/v1/keys/{id_}"),
        }
    for answer in asked.values():
        assert_problem(answer, 403, "scope admin")
    assert await db.fetchval("SELECT count(*) FROM api_key WHERE revoked_at IS NULL") == 1
