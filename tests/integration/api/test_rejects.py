"""Rejected messages over HTTP: the list, the payloads and the replay, against real processes and a real database."""

import asyncio
import base64
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api import keys
from api.reject_models import MOST_REPLAYED
from api.rejects import MOST_SHOWN_BYTES
from bridge.delivery import Item
from bridge.errors import Rejected
from bridge.formats import decode_message
from bridge.formats.contract_json import encode, encode_many, topic_of
from bridge.formats.port import AcceptedWindow
from bridge.reading import Reading, format_timestamp
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Api, Connection, assert_problem
from tests.readings import meter, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio

REJECTS, REPLAY = "/v1/rejects", "/v1/rejects/replay"
NARROW = AcceptedWindow(timedelta(minutes=2), timedelta(minutes=2))
"""What is rejected by this window is accepted by that of the API."""
EARLIER = now_minute() - timedelta(hours=1)
Admin = httpx.AsyncClient


@pytest.fixture
async def admin_key(db: Connection) -> str:
    return (await keys.create(db, "boss", keys.Grant(("admin",))))[1]


@pytest.fixture
async def admin(api: Api, admin_key: str) -> AsyncIterator[Admin]:
    """A client whose key has the scope admin."""
    async with api.client(admin_key) as client:
        yield client


@pytest.fixture
async def mqtt(database_url: str) -> AsyncIterator[PostgresStore]:
    """The store with which the bridge writes."""
    store = PostgresStore(database_url, source="mqtt")
    yield store
    await store.close()


def late(topic: str, payload: bytes) -> list[Item]:
    """A message as the bridge decodes it, with a window in which readings of an hour ago are too late."""
    return decode_message(topic, payload, NARROW.at(datetime.now(UTC)))


async def rejected(db: Connection, mqtt: PostgresStore, *readings: Reading) -> list[str]:
    """Reject readings as too late; the ids in the order of the readings."""
    for reading in readings:
        await mqtt.write(late(topic_of(reading), encode(reading)))
    rows = await db.fetch("SELECT id, payload FROM rejected_message")
    ids = {row["payload"]: str(row["id"]) for row in rows}
    return [ids[encode(reading)] for reading in readings]


async def listed(client: httpx.AsyncClient, **query: object) -> list[dict[str, Any]]:
    answer = await client.get(REJECTS, params={name.rstrip("_"): str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def replay(client: httpx.AsyncClient, *ids: str, **options: bool) -> list[dict[str, Any]]:
    answer = await client.post(REPLAY, json={"ids": ids, **options})
    assert answer.status_code == 200, answer.text
    assert answer.json()["dryRun"] is options.get("dryRun", False)
    items: list[dict[str, Any]] = answer.json()["items"]
    assert [item["id"] for item in items] == list(dict.fromkeys(ids))
    return items


def result(id_: str, outcome: str, stored: int = 0, duplicates: int = 0, rejected: int = 0) -> dict[str, Any]:
    return {"id": id_, "outcome": outcome, "stored": stored, "duplicates": duplicates, "rejected": rejected}


def without_detail(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "detail"} for item in items]


async def count(db: Connection, table: str = "vehicle_telemetry_history") -> int:
    found: int = await db.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def replays(db: Connection) -> list[tuple[str, str]]:
    """Actor and subject of each replay in the audit log."""
    return [
        tuple(row) for row in await db.fetch("SELECT actor, subject FROM audit_log WHERE action = 'rejected.replay'")
    ]


async def test_reject_as_it_is_answered(client: httpx.AsyncClient, db: Connection, mqtt: PostgresStore) -> None:
    payload = encode(vehicle("EV_1", EARLIER))
    (id_,) = await rejected(db, mqtt, vehicle("EV_1", EARLIER))
    received = await db.fetchval("SELECT received_at FROM rejected_message")
    (item,) = await listed(client)
    assert item.pop("detail").startswith("timestamp: ")
    assert item == {
        "id": id_,
        "receivedAt": format_timestamp(received),
        "source": "mqtt",
        "topic": "fleet/vehicle/EV_1/telemetry",
        "kind": "vehicle",
        "sender": None,
        "device": "EV_1",
        "reason": "timestamp_out_of_range",
        "format": "json",
        "bytes": len(payload),
        "replayedAt": None,
    }
    one = (await client.get(f"{REJECTS}/{id_}")).json()
    assert one.pop("detail").startswith("timestamp: ")
    assert one.pop("payload") == {"encoding": "utf-8", "content": payload.decode(), "shortened": False}
    assert one == item
    assert_problem(await client.get(f"{REJECTS}/{uuid4()}"), 404, "no rejected message")
    assert_problem(await client.get(f"{REJECTS}/nonsense"), 422, "id")


async def test_filters_narrow_the_list(client: httpx.AsyncClient, db: Connection, mqtt: PostgresStore) -> None:
    await rejected(db, mqtt, vehicle("EV_1", EARLIER), meter("METER_1", EARLIER))
    await mqtt.write(late("fleet/vehicle/EV_2/telemetry", b"nonsense"))
    await client.post("/v1/ingest", json={"vehicleId": "EV_3"})
    await db.execute("UPDATE rejected_message SET replayed_at = now() WHERE device = 'METER_1'")
    await db.execute("UPDATE rejected_message SET device = 'EV_TODAY' WHERE device = 'EV_2'")
    await db.execute(
        "INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload) "
        "SELECT gen_random_uuid(), now() - interval '30 hours', source, topic, 'EV_2', reason, detail, payload "
        "FROM rejected_message WHERE device = 'EV_TODAY'"
    )
    await db.execute("DELETE FROM rejected_message WHERE device = 'EV_TODAY'")

    async def devices(**query: object) -> set[str]:
        return {item["device"] for item in await listed(client, **query)}

    day_before = {"from_": format_timestamp(datetime.now(UTC) - timedelta(hours=40)), "to": format_timestamp(EARLIER)}
    assert await devices() == {"EV_1", "METER_1", "EV_3"}
    assert await devices(**day_before) == {"EV_2"}
    assert await devices(reason="not_json", **day_before) == {"EV_2"}
    assert await devices(reason="timestamp_out_of_range") == {"EV_1", "METER_1"}
    assert await devices(source="http") == {"EV_3"}
    assert await devices(topic="fleet/meter/METER_1/telemetry") == {"METER_1"}
    assert await devices(device="EV_1", replayed="false") == {"EV_1"}
    assert await devices(replayed="true") == {"METER_1"}
    assert await devices(source="http", replayed="true") == set()
    for wrong in ({"reason": "bored"}, {"replayed": "perhaps"}, {"nonsense": "1"}, {"from": "2020-01-01T00:00:00Z"}):
        assert_problem(await client.get(REJECTS, params=wrong), 422, next(iter(wrong)))


async def test_pages_and_csv_hold_each_reject_once(
    client: httpx.AsyncClient, db: Connection, mqtt: PostgresStore
) -> None:
    """All rejects of a batch have the same time."""
    await mqtt.write([item for n in range(1200) for item in late("fleet/vehicle/EV_1/telemetry", b"no %d" % n)])
    await mqtt.write(late("fleet/vehicle/EV_2/telemetry", b"last"))
    found: list[dict[str, Any]] = []
    url = httpx.URL(REJECTS, params={"limit": 500})
    for _ in range(3):
        page = await client.get(url)
        found += page.json()["items"]
        following = page.json()["nextCursor"]
        assert page.headers.get("x-next-cursor") == following
        if following:
            url = url.join(page.links["next"]["url"])
    assert following is None
    assert found[0]["device"] == "EV_2"
    assert len({item["id"] for item in found}) == len(found) == 1201
    text = (await client.get(REJECTS, headers={"Accept": "text/csv"})).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == [item["id"] for item in found]
    assert list(rows[0]) == list(found[0])
    for cursor in ("nonsense", base64.urlsafe_b64encode(b'["2026-02-10T10:15:00Z","no uuid"]').decode()):
        assert_problem(await client.get(REJECTS, params={"cursor": cursor}), 422, "cursor")


@pytest.mark.parametrize(
    ("payload", "encoding", "content", "shortened"),
    [
        (b"", "utf-8", "", False),
        ("\0\x1b[31m<img onerror=alert(1)>\u202eü".encode(), "utf-8", "\0\x1b[31m<img onerror=alert(1)>\u202eü", False),
        (b"\xff\xfe", "base64", "//4=", False),
        (b"half \xc3", "base64", "aGFsZiDD", False),
        (b"x" * (MOST_SHOWN_BYTES + 1), "utf-8", "x" * MOST_SHOWN_BYTES, True),
        (b"x" + "ü".encode() * MOST_SHOWN_BYTES, "utf-8", "x" + "ü" * (MOST_SHOWN_BYTES // 2 - 1), True),
        (b"\xff" * 3 * MOST_SHOWN_BYTES, "base64", base64.b64encode(b"\xff" * MOST_SHOWN_BYTES).decode(), True),
    ],
    ids=["empty", "controls", "binary", "half a character", "long", "long, cut in a character", "long and binary"],
)
async def test_payload_is_text_or_base64_and_says_when_it_is_shortened(
    client: httpx.AsyncClient,
    db: Connection,
    mqtt: PostgresStore,
    payload: bytes,
    encoding: str,
    content: str,
    shortened: bool,
) -> None:
    await mqtt.write([Rejected("not_json", "why", payload, "fleet/vehicle/EV_1/telemetry", "EV_1")])
    id_ = await db.fetchval("SELECT id FROM rejected_message")
    found = (await client.get(f"{REJECTS}/{id_}")).json()
    assert found["payload"] == {"encoding": encoding, "content": content, "shortened": shortened}
    assert found["bytes"] == len(payload)


async def test_page_is_bounded_for_the_longest_topics(client: httpx.AsyncClient, mqtt: PostgresStore) -> None:
    longest = "x" * 65_535
    await mqtt.write([Rejected("bad_topic", "why", b"%d" % n, longest) for n in range(1000)])
    answer = await client.get(REJECTS, params={"limit": 1000})
    assert len(answer.json()["items"]) == 1000
    assert len(answer.content) < 1_000_000
    assert answer.json()["items"][0]["topic"] == longest[:256]


async def test_replay_stores_the_readings_once_and_records_who_did_it(
    api: Api, admin: Admin, admin_key: str, db: Connection, mqtt: PostgresStore
) -> None:
    one, other = await rejected(db, mqtt, vehicle("EV_1", EARLIER), vehicle("EV_2", EARLIER))
    first = await replay(admin, one, other, one)
    assert first == [{**result(id_, "stored", stored=1), "detail": ""} for id_ in (one, other)]
    rows = await db.fetch("SELECT vehicle_id, ts FROM vehicle_telemetry_history ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("EV_1", EARLIER),
        ("EV_2", EARLIER),
    ]
    actor = f"key:{admin_key.split('_')[1]}"
    assert await replays(db) == [(actor, f"rejected:{one}"), (actor, f"rejected:{other}")]
    assert all(item["replayedAt"] for item in await listed(admin))
    assert without_detail(await replay(admin, one)) == [result(one, "replayed")]
    assert (await count(db), len(await replays(db))) == (2, 2)


async def test_dry_run_says_what_would_happen_and_changes_nothing(
    admin: Admin, db: Connection, mqtt: PostgresStore, client: httpx.AsyncClient
) -> None:
    new, known, conflict = vehicle("EV_1", EARLIER), vehicle("EV_2", EARLIER), vehicle("EV_3", EARLIER)
    ids = await rejected(db, mqtt, new, known, conflict)
    stored = encode_many([known, vehicle("EV_3", EARLIER, soc=1)])
    assert (await client.post("/v1/ingest", content=stored, headers={"Content-Type": "application/json"})).is_success
    await mqtt.write(late("fleet/vehicle/EV_4/telemetry", b"nonsense"))
    ids.append(str(await db.fetchval("SELECT id FROM rejected_message WHERE device = 'EV_4'")))
    ids.append(str(uuid4()))
    before = await db.fetch("SELECT * FROM rejected_message ORDER BY id")
    foreseen = await replay(admin, *ids, dryRun=True)
    assert without_detail(foreseen) == [
        result(ids[0], "stored", stored=1),
        result(ids[1], "stored", duplicates=1),
        result(ids[2], "rejected", rejected=1),
        result(ids[3], "rejected", rejected=1),
        result(ids[4], "unknown"),
    ]
    assert "conflict: " in foreseen[2]["detail"]
    assert "not_json: " in foreseen[3]["detail"]
    assert await db.fetch("SELECT * FROM rejected_message ORDER BY id") == before
    assert (await count(db), await replays(db)) == (2, [])
    assert await replay(admin, *ids) == foreseen
    assert await count(db) == 3


async def test_array_is_replayed_in_part_and_its_rest_is_rejected_by_element(
    admin: Admin, db: Connection, mqtt: PostgresStore
) -> None:
    """A backlog of more readings than a message may have, one of which is wrong."""
    backlog = list(minutes("EV_1", 1500, EARLIER))
    body = encode_many(backlog)[:-1] + b',{"vehicleId":"EV_1","soc":"?"}]'
    (whole,) = decode_message("fleet/vehicle/EV_1/telemetry", body, NARROW.at(datetime.now(UTC)))
    assert isinstance(whole, Rejected)
    await mqtt.write([whole])
    id_ = str(await db.fetchval("SELECT id FROM rejected_message"))
    foreseen = await replay(admin, id_, dryRun=True)
    assert await count(db) == 0
    replayed = await replay(admin, id_)
    assert replayed == foreseen
    assert without_detail(replayed) == [result(id_, "partly", stored=1500, rejected=1)]
    assert replayed[0]["detail"].startswith("1500: invalid_field: ")
    assert await count(db) == 1500
    left = await listed(admin, replayed="false")
    assert [item["reason"] for item in left] == ["invalid_field"]


async def test_message_with_too_many_elements_stays_for_the_command_line(
    admin: Admin, db: Connection, mqtt: PostgresStore
) -> None:
    await mqtt.write(late("fleet/vehicle/EV_1/telemetry", b"[" + b"1," * 20_000 + b"1]"))
    id_ = str(await db.fetchval("SELECT id FROM rejected_message"))
    (found,) = await replay(admin, id_)
    assert (found["outcome"], found["rejected"]) == ("rejected", 1)
    assert "too_many_readings" in found["detail"]
    assert await count(db, "rejected_message") == 1


async def test_forbidden_reading_is_skipped_unless_it_is_asked_for(api: Api, admin: Admin, db: Connection) -> None:
    token = (await keys.create(db, "own", keys.Grant(("ingest",), devices=("EV_1",))))[1]
    async with api.client(token) as client:
        body = json.loads(encode(vehicle("EV_2")))
        assert_problem(await client.post("/v1/ingest", json=body), 403)
    id_ = str(await db.fetchval("SELECT id FROM rejected_message"))
    for options in ({}, {"dryRun": True}):
        assert without_detail(await replay(admin, id_, **options)) == [result(id_, "forbidden")]
    assert (await count(db), await replays(db)) == (0, [])
    assert without_detail(await replay(admin, id_, evenForbidden=True)) == [result(id_, "stored", stored=1)]
    assert await count(db) == 1


async def test_replay_needs_the_scope_admin(api: Api, client: httpx.AsyncClient, db: Connection) -> None:
    assert_problem(await client.post(REPLAY, json={"ids": [str(uuid4())]}), 403, "admin")
    ingest = (await keys.create(db, "device", keys.Grant(("ingest",))))[1]
    async with api.client(ingest) as device:
        assert_problem(await device.get(REJECTS), 403, "read")
        assert_problem(await device.get(f"{REJECTS}/{uuid4()}"), 403, "read")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["nonsense"]},
        {"ids": [str(UUID(int=n)) for n in range(MOST_REPLAYED + 1)]},
        {"ids": [str(UUID(int=1))], "dryRun": "yes"},
        {"reason": "not_json"},
    ],
)
async def test_selection_is_bounded_and_named(admin: Admin, body: dict[str, object]) -> None:
    assert_problem(await admin.post(REPLAY, json=body), 422)


async def test_replays_at_the_same_time_store_each_message_once(
    start_api: Callable[..., Api], admin_key: str, database_url: str, db: Connection, mqtt: PostgresStore
) -> None:
    """By two processes of the API and by the command line, with the same ids in different orders."""
    ids = await rejected(db, mqtt, *(vehicle(f"EV_{n}", EARLIER) for n in range(60)))
    command = [sys.executable, "-m", "bridge", "rejected", "replay", *ids[30:], *ids[:30]]
    env = {**os.environ, "FLEET_DATABASE_URL": database_url}
    async with start_api().client(admin_key) as one, start_api().client(admin_key) as other:
        mine, others, ran = await asyncio.gather(
            replay(one, *ids),
            replay(other, *reversed(ids)),
            asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, check=False),
        )
    stored = [item["id"] for item in mine + others if item["outcome"] == "stored"]
    stored += [line.split()[0] for line in ran.stdout.splitlines() if line.endswith(" stored")]
    assert sorted(stored) == sorted(ids)
    assert {item["outcome"] for item in mine + others} <= {"stored", "replayed", "busy"}
    assert await count(db) == 60
    assert sorted(subject for _, subject in await replays(db)) == sorted(f"rejected:{id_}" for id_ in ids)


_WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass)"


@pytest.mark.parametrize("table", ["vehicle_telemetry_history", "audit_log"], ids=["before", "after"])
async def test_replay_that_is_killed_around_its_commit_is_repeated_without_a_second_row(
    start_api: Callable[..., Api], admin_key: str, db: Connection, mqtt: PostgresStore, table: str
) -> None:
    """The commit of the readings, which comes before the reject is marked."""
    (id_,) = await rejected(db, mqtt, vehicle("EV_1", EARLIER))
    killed = start_api()
    async with killed.client(admin_key) as client, db.transaction():
        await db.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # so that it cannot finish
        asking = asyncio.create_task(client.post(REPLAY, json={"ids": [id_]}))
        await until(lambda: db.fetchval(_WAITING, table))
        assert await count(db) == (table == "audit_log")
        second = await client.post(REPLAY, json={"ids": [id_]})
        assert_problem(second, 503, "another request is replaying")
        assert second.headers["retry-after"] == "1"
        os.kill(killed.process.pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await asking
    assert (await listed_in(db), await replays(db)) == ([(UUID(id_), None)], [])
    async with start_api().client(admin_key) as client:

        async def is_repeated() -> bool:
            (found,) = await replay(client, id_)
            if found["outcome"] == "busy":  # The server has not noticed yet that the session is gone.
                return False
            assert (found["outcome"], found["stored"] + found["duplicates"]) == ("stored", 1)
            return True

        await until(is_repeated)
    assert (await count(db), len(await replays(db))) == (1, 1)


async def test_messages_for_which_the_time_of_the_request_is_over_are_left(
    start_api: Callable[..., Api], admin_key: str, db: Connection, mqtt: PostgresStore
) -> None:
    ids = await rejected(db, mqtt, vehicle("EV_1", EARLIER), vehicle("EV_2", EARLIER))
    async with start_api(http_request_timeout_s=4).client(admin_key) as client:
        async with db.transaction():
            await db.execute("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(replay(client, *ids))
            await until(lambda: db.fetchval(_WAITING, "audit_log"))
            over = time.monotonic() + 2
            await until(lambda: time.monotonic() > over)
        found = await asking
    assert without_detail(found) == [result(ids[0], "stored", stored=1), result(ids[1], "left")]
    assert await count(db) == 1


async def listed_in(db: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.fetch("SELECT id, replayed_at FROM rejected_message")]


async def test_limited_key_sees_the_rejects_that_surely_are_of_its_devices(
    api: Api, client: httpx.AsyncClient, db: Connection, mqtt: PostgresStore
) -> None:
    topic = "fleet/{}/{}/telemetry".format
    await mqtt.write(late(topic("vehicle", "EV_1"), b"on the own topic"))
    await mqtt.write(late(topic("vehicle", "EV_2"), b'{"vehicleId": "EV_1"}'))  # on the topic of another one
    await mqtt.write(late(topic("meter", "EV_1"), b"of a meter with the same id"))
    await mqtt.write([Rejected("not_json", "of another format", b"?", "pairs/EV_1", "EV_1")])
    await client.post("/v1/ingest", json={"vehicleId": "EV_1"})  # says who it is
    at = now_minute()
    for soc in (1, 2):
        await client.post("/v1/ingest", json=json.loads(encode(vehicle("EV_1", at, soc=soc))))  # a conflict
    own = (await keys.create(db, "driver", keys.Grant(("read",), devices=("vehicle:EV_1",))))[1]
    unlimited = await listed(client)
    assert len(unlimited) == 6
    async with api.client(own) as driver:
        seen = await listed(driver)
        assert {(item["source"], item["reason"]) for item in seen} == {("mqtt", "not_json"), ("http", "conflict")}
        assert {(item["kind"], item["device"]) for item in seen} == {("vehicle", "EV_1")}
        statuses = {item["id"]: (await driver.get(f"{REJECTS}/{item['id']}")).status_code for item in unlimited}
        text = (await driver.get(REJECTS, headers={"Accept": "text/csv"})).text
        assert_problem(await driver.post(REPLAY, json={"ids": [seen[0]["id"]]}), 403)
    assert {id_ for id_, status in statuses.items() if status == 200} == {item["id"] for item in seen}
    assert set(statuses.values()) == {200, 404}
    assert len(text.splitlines()) == 1 + len(seen)
