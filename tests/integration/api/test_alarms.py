"""Alarms, their rules and webhooks over HTTP, against the real process and a real database."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from api import keys, webhooks
from bridge.alarms.measures import MEASURES
from tests.integration.api.server import Api, Connection, assert_problem

pytestmark = pytest.mark.anyio

ALARMS, RULES, WEBHOOKS = "/v1/alarms", "/v1/alarm-rules", "/v1/webhooks"
_RAISE = """
INSERT INTO alarm (rule, measure, severity, kind, device, site, raised_at, cleared_at, value, bound, unit, message)
VALUES ($1, 'soc', $2, 'vehicle', $3, $4, '2026-02-01Z'::timestamptz + $5 * interval '1 hour',
        CASE WHEN $6::boolean THEN now() END, 1, 5, '%', 'text') RETURNING id
"""
RULE = {"measure": "soc", "direction": "below", "raiseAt": 3, "clearAt": 6.5, "severity": "info"}
KEYS = ["id", "rule", "severity", "kind", "device", "site", "raisedAt", "clearedAt", "acknowledgedAt", "acknowledgedBy"]


async def raised(
    db: Connection,
    device: str = "EV_1",
    hour: int = 0,
    rule: str = "soc-low",
    severity: str = "warning",
    site: str | None = None,
    cleared: bool = False,
) -> int:
    id_: int = await db.fetchval(_RAISE, rule, severity, device, site, hour, cleared)
    return id_


@pytest.fixture
async def admin(api: Api, db: Connection) -> Any:
    """A client whose key has the scope admin."""
    async with api.client((await keys.create(db, "boss", keys.Grant(("admin",))))[1]) as client:
        yield client


async def ids(client: httpx.AsyncClient, **query: object) -> list[int]:
    answer = await client.get(ALARMS, params={name.rstrip("_"): str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_alarm_as_it_is_answered(client: httpx.AsyncClient, db: Connection) -> None:
    id_ = await raised(db, site="Nord")
    answer = await client.get(f"{ALARMS}/{id_}")
    assert answer.json() == {
        "id": id_,
        "rule": "soc-low",
        "severity": "warning",
        "kind": "vehicle",
        "device": "EV_1",
        "site": "Nord",
        "raisedAt": "2026-02-01T00:00:00Z",
        "clearedAt": None,
        "acknowledgedAt": None,
        "acknowledgedBy": None,
        "note": None,
        "value": 1.0,
        "bound": 5.0,
        "unit": "%",
        "message": "text",
    }
    assert (await client.get(ALARMS)).json() == {"items": [answer.json()], "nextCursor": None}
    assert_problem(await client.get(f"{ALARMS}/{id_ + 1}"), 404, str(id_ + 1))


async def test_list_is_filtered_and_open_by_default(client: httpx.AsyncClient, db: Connection) -> None:
    a = await raised(db, "EV_1", 0, site="Nord")
    b = await raised(db, "EV_2", 1, "silent", "critical")
    c = await raised(db, "EV_1", 2, cleared=True)
    assert await ids(client) == [b, a]
    assert await ids(client, state="cleared") == [c]
    assert await ids(client, state="all") == [c, b, a]
    assert await ids(client, state="all", device="EV_1") == [c, a]
    assert await ids(client, site="Nord") == [a]
    assert await ids(client, rule="silent") == await ids(client, severity="critical") == [b]
    assert await ids(client, state="all", from_="2026-02-01T01:00:00Z", to="2026-02-01T02:00:00Z") == [b]


async def test_pages_and_csv_have_every_alarm_once(client: httpx.AsyncClient, db: Connection) -> None:
    made = [await raised(db, f"EV_{n}") for n in range(7)]
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = (await client.get(ALARMS, params=query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert seen == made[::-1]
    answer = await client.get(ALARMS, headers={"Accept": "text/csv"}, params={"limit": 1})
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == [*KEYS, "note", "value", "bound", "unit", "message"]
    assert [int(row[0]) for row in rows[1:]] == made[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "closed"}, "state"),
        ({"severity": "bad"}, "severity"),
        ({"cursor": "xxx"}, "cursor"),
        ({"from": "2026-02-02T00:00:00Z", "to": "2026-02-01T00:00:00Z"}, "from"),
        ({"rule": "A B"}, "rule"),
    ],
)
async def test_wrong_parameter_is_named(client: httpx.AsyncClient, query: dict[str, str], field: str) -> None:
    problem = assert_problem(await client.get(ALARMS, params=query), 422)
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_alarm_is_acknowledged_once_by_name(client: httpx.AsyncClient, db: Connection) -> None:
    id_ = await raised(db)
    path = f"{ALARMS}/{id_}/acknowledge"
    first = await client.post(path, json={"note": "on my way"})
    assert first.status_code == 200
    assert (first.json()["acknowledgedBy"], first.json()["note"]) == ("test", "on my way")
    assert first.json()["acknowledgedAt"] is not None
    assert_problem(await client.post(path), 409, "test")
    assert (await client.get(f"{ALARMS}/{id_}")).json() == first.json()
    other = await raised(db, "EV_2")
    assert (await client.post(f"{ALARMS}/{other}/acknowledge")).json()["note"] is None
    assert_problem(await client.post(f"{ALARMS}/999999/acknowledge"), 404)
    rows = await db.fetch("SELECT subject, detail FROM audit_log WHERE action = 'alarm.acknowledge' ORDER BY id")
    assert [row["subject"] for row in rows] == [f"alarm:{id_}", f"alarm:{other}"]
    assert json.loads(rows[0]["detail"]) == {"note": "on my way"}


async def test_default_rules_can_be_put_back_as_they_are_answered(admin: httpx.AsyncClient) -> None:
    rules = (await admin.get(RULES)).json()["items"]
    assert {rule["measure"] for rule in rules} == MEASURES.keys()
    for rule in rules:
        body = {key: value for key, value in rule.items() if key not in ("name", "unit")}
        answer = await admin.put(f"{RULES}/{rule['name']}", json=body)
        assert (answer.status_code, answer.json()) == (200, rule)


async def test_rule_is_created_replaced_and_removed(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    path = f"{RULES}/soc-of-depot"
    assert_problem(await admin.get(path), 404)
    created = await admin.put(path, json=RULE | {"site": "Nord", "kind": "vehicle"})
    assert created.status_code == 201
    own = {"kind": "vehicle", "site": "Nord", "device": None}
    assert created.json() == {"name": "soc-of-depot", "unit": "%", "enabled": True, "forS": 0, **RULE, **own}
    assert (await client.get(path)).json() == created.json()
    replaced = (await admin.put(path, json=RULE | {"enabled": False, "forS": 600})).json()
    assert (replaced["site"], replaced["forS"]) == (None, 600)
    assert_problem(await client.put(path, json=RULE), 403)
    assert_problem(await client.delete(path), 403)
    assert (await admin.delete(path)).status_code == 204
    assert_problem(await admin.delete(path), 404)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clearAt": 2}, "clearAt"),
        ({"direction": "above"}, "clearAt"),
        ({"kind": "meter"}, "kind"),
        ({"measure": "diskDays", "site": "Nord"}, "site"),
        ({"measure": "certificateDays", "device": "EV_1"}, "device"),
        ({"measure": "colour"}, "measure"),
        ({"severity": "bad"}, "severity"),
        ({"raiseAt": "3"}, "raiseAt"),
        ({"forS": -1}, "forS"),
        ({"forS": 604_801}, "forS"),
        ({"color": 1}, "color"),
    ],
)
async def test_wrong_rule_is_refused_and_the_field_is_named(
    admin: httpx.AsyncClient, change: dict[str, object], field: str
) -> None:
    problem = assert_problem(await admin.put(f"{RULES}/mine", json=RULE | change), 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert_problem(await admin.get(f"{RULES}/mine"), 404)


async def test_secret_of_a_webhook_is_shown_once_and_only_to_admins(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, db: Connection
) -> None:
    for answer in (await client.get(WEBHOOKS), await client.post(WEBHOOKS, json={"url": "http://a/"})):
        assert_problem(answer, 403)
    created = await admin.post(WEBHOOKS, json={"url": "https://example.com/x?y=1"})
    assert created.status_code == 201
    id_, secret = created.json()["id"], created.json()["secret"]
    assert secret.startswith("whsec_")
    listed = await admin.get(WEBHOOKS)
    own = {"id": id_, "url": "https://example.com/x?y=1", "createdAt": created.json()["createdAt"]}
    assert listed.json() == {"items": [own | {"disabledAt": None, "pending": 0, "failed": 0}]}
    assert secret not in "".join(row[0] for row in await db.fetch("SELECT detail::text FROM audit_log"))
    assert (await admin.delete(f"{WEBHOOKS}/{id_}")).status_code == 204
    assert_problem(await admin.delete(f"{WEBHOOKS}/{id_}"), 404)
    assert (await admin.get(WEBHOOKS)).json() == {"items": []}


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a/", "http://", "a", "http://a:0/", "http://a/#b", "http://ä/", "http://a/ b"),
        *("http://a..b/", "http://.a/", "http://-a/", "http://a-.b/", "http://a,b/", "http://[::g]/", "http://[::1/"),
        *(f"http://{'a' * 64}.b/", f"http://{'a.' * 127}b/", "https://me:secret@a/", "https://me@a/"),
    ],
)
async def test_wrong_url_of_a_webhook_is_refused(admin: httpx.AsyncClient, url: str) -> None:
    problem = assert_problem(await admin.post(WEBHOOKS, json={"url": url}), 422)
    assert [error["field"] for error in problem["errors"]] == ["url"]


@pytest.mark.parametrize(
    "url", ["http://a_b.c-d./", "http://127.1/", "http://[::1]:80/x", "https://xn--bcher-kva.example"]
)
async def test_url_of_a_host_that_a_resolver_knows_is_accepted(admin: httpx.AsyncClient, url: str) -> None:
    created = await admin.post(WEBHOOKS, json={"url": url})
    assert created.status_code == 201
    await admin.delete(f"{WEBHOOKS}/{created.json()['id']}")


async def test_number_of_webhooks_is_limited(admin: httpx.AsyncClient) -> None:
    created = [await admin.post(WEBHOOKS, json={"url": f"http://a/{n}"}) for n in range(webhooks.MOST)]
    assert {answer.status_code for answer in created} == {201}
    assert_problem(await admin.post(WEBHOOKS, json={"url": "http://a/"}), 409)
    assert (await admin.delete(f"{WEBHOOKS}/{created[0].json()['id']}")).status_code == 204
    assert (await admin.post(WEBHOOKS, json={"url": "http://a/"})).status_code == 201


async def test_limited_key_sees_the_alarms_of_its_devices(api: Api, db: Connection) -> None:
    await db.execute("INSERT INTO device (kind, id, site) VALUES ('vehicle', 'EV_2', 'Nord')")
    a, b, c = [await raised(db, name) for name in ("EV_1", "EV_2", "EV_3")]
    await db.execute("UPDATE alarm SET kind = NULL, device = NULL WHERE id = $1", c)
    grant = keys.Grant(("read",), ("vehicle:EV_1",), sites=("Nord",))
    async with api.client((await keys.create(db, "depot", grant))[1]) as client:
        assert await ids(client) == [b, a]
        assert await ids(client, site="Nord") == []
        assert_problem(await client.get(ALARMS, params={"site": "Sued"}), 403)
        assert (await client.get(f"{ALARMS}/{a}")).status_code == 200
        assert_problem(await client.get(f"{ALARMS}/{c}"), 404)
        assert_problem(await client.get(RULES), 403)
