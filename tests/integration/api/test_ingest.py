"""POST /v1/ingest against the real process and a real database."""

import asyncio
import gzip
import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from bridge.formats.contract_json import encode, encode_many
from local.ports import is_open
from local.postgres import Postgres
from tests.integration.api.server import Api, Connection, assert_problem
from tests.readings import SEED_METER, SEED_TIME, SEED_VEHICLE, meter, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


async def post(client: httpx.AsyncClient, body: bytes, headers: dict[str, str] = JSON) -> httpx.Response:
    return await client.post("/v1/ingest", content=body, headers=headers)


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(encode(vehicle())), **changes}


async def blocked(db: Connection) -> None:
    """Wait until a session waits for a lock."""
    await until(lambda: db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def count(db: Connection, table: str = "vehicle_telemetry_history") -> int:
    return int(await db.fetchval(f"SELECT count(*) FROM {table}"))


async def test_reading_posted_is_in_history_and_live(client: httpx.AsyncClient, db: Connection) -> None:
    answer = await post(client, encode(vehicle()))
    assert answer.status_code == 201
    assert answer.json() == {"stored": 1, "duplicates": 0, "rejected": []}
    assert await count(db) == await count(db, "vehicle_live_status") == 1


async def test_meter_and_vehicle_in_one_array(client: httpx.AsyncClient, db: Connection) -> None:
    answer = await post(client, encode_many([vehicle(), meter()]))
    assert answer.json() == {"stored": 2, "duplicates": 0, "rejected": []}
    assert await count(db, "meter_telemetry_history") == 1


async def test_reading_posted_again_is_a_duplicate(client: httpx.AsyncClient, db: Connection) -> None:
    await post(client, encode(vehicle()))
    again = await post(client, encode(vehicle()))
    assert (again.status_code, again.json()["duplicates"]) == (201, 1)
    assert await count(db) == 1


async def test_same_identity_with_other_values_is_a_conflict(client: httpx.AsyncClient, db: Connection) -> None:
    await post(client, encode(vehicle(soc=10)))
    answer = await post(client, encode(vehicle(soc=11)))
    problem = assert_problem(answer, 422, "conflict")
    assert problem["stored"] == 0
    assert problem["rejected"][0]["index"] == 0
    assert await db.fetchval("SELECT reason FROM rejected_message") == "conflict"


async def test_ndjson_with_a_broken_line_stores_the_others(client: httpx.AsyncClient, db: Connection) -> None:
    good = [encode(reading) for reading in minutes("EV_1", 2)]
    answer = await post(client, b"\n".join([good[0], b"{broken", b"", good[1]]), NDJSON)
    assert answer.status_code == 207
    assert answer.json()["stored"] == 2
    assert answer.json()["rejected"][0]["index"] == 1
    assert await count(db) == 2


async def test_gzip_array_of_ten_thousand(client: httpx.AsyncClient, db: Connection) -> None:
    body = encode_many(minutes("EV_1", 10_000))
    answer = await post(client, gzip.compress(body), JSON | {"Content-Encoding": "gzip"})
    assert answer.json() == {"stored": 10_000, "duplicates": 0, "rejected": []}
    assert await count(db) == 10_000


async def test_concurrent_posts_share_transactions(client: httpx.AsyncClient, db: Connection) -> None:
    readings = [encode(vehicle(f"EV_{n}")) for n in range(200)]
    answers = await asyncio.gather(*(post(client, body) for body in readings))
    assert {answer.status_code for answer in answers} == {201}
    assert await count(db) == 200
    transactions = await db.fetchval("SELECT count(DISTINCT received_at) FROM vehicle_telemetry_history")
    assert transactions < 200


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong type": ({"kwhDeliveredDc": "72"}, "kwhDeliveredDc"),
    "boolean": ({"kwhDeliveredDc": True}, "kwhDeliveredDc"),
    "too large": ({"kwhDeliveredDc": 1e300}, "kwhDeliveredDc"),
    "negative register": ({"kwhChargedRegister": -1}, "kwhChargedRegister"),
    "nothing but null": ({"soc": None, "kwhDeliveredDc": None, "batteryTemp": None}, "at least one"),
    "null as id": ({"vehicleId": None}, "vehicleId"),
    "null as time": ({"timestamp": None}, "timestamp"),
    "bad id": ({"vehicleId": "EV 1"}, "vehicleId"),
    "sql in id": ({"vehicleId": "x'; DROP TABLE api_key; --"}, "vehicleId"),
    "long id": ({"vehicleId": "x" * 65}, "vehicleId"),
    "naive time": ({"timestamp": "2026-02-10T10:15:00"}, "offset"),
    "no time": ({"timestamp": 17}, "timestamp"),
    "1970": ({"timestamp": "1970-01-01T00:00:00Z"}, "in the past"),
    "2100": ({"timestamp": "2100-01-01T00:00:00Z"}, "in the future"),
    "both ids": ({"meterId": "M"}, "vehicleId or meterId: only one of them is allowed"),
}
ODD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong type": ({"soc": "72"}, "soc"),
    "out of limits": ({"batteryTemp": 1000}, "batteryTemp"),
    "NaN": ({"soc": float("nan")}, "soc"),
    "nul in extra": ({"note": "a\0b"}, "note"),
    "lone surrogate in extra": ({"note": "\ud800"}, "note"),
    "too much extra": ({"note": "x" * 65_536}, "extra"),
}


@pytest.mark.parametrize(("changes", "field"), ODD_FIELDS.values(), ids=ODD_FIELDS.keys())
async def test_odd_reading_is_stored_without_what_is_odd_and_its_receipt_warns(
    client: httpx.AsyncClient, db: Connection, changes: dict[str, Any], field: str
) -> None:
    answer = await post(client, json.dumps(document(**changes)).encode())
    assert answer.status_code == 201
    assert answer.json() | {"warnings": []} == {"stored": 1, "duplicates": 0, "rejected": [], "warnings": []}
    assert [(warning["index"], warning["field"]) for warning in answer.json()["warnings"]] == [(0, field)]
    assert await db.fetchval("SELECT kwh_delivered_dc FROM vehicle_telemetry_history") == 4.25
    assert await count(db, "rejected_message") == 0


@pytest.mark.parametrize("payload", [SEED_VEHICLE, SEED_METER])
async def test_receipt_of_a_seed_payload_is_the_bytes_that_it_always_was(
    start_api: Callable[..., Api], token: str, payload: bytes
) -> None:
    past_days = (datetime.now(UTC) - SEED_TIME).days + 2
    async with start_api(past_limit_days=max(past_days, 90)).client(token) as client:
        answer = await post(client, payload)
    assert (answer.status_code, answer.content) == (201, b'{"stored":1,"duplicates":0,"rejected":[]}')


@pytest.mark.parametrize(("changes", "reason"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
async def test_bad_reading_is_kept_with_its_reason(
    client: httpx.AsyncClient, db: Connection, changes: dict[str, Any], reason: str
) -> None:
    problem = assert_problem(await post(client, json.dumps(document(**changes)).encode()), 422, reason)
    assert problem["rejected"][0]["reason"] == problem["detail"]
    row = await db.fetchrow("SELECT * FROM rejected_message")
    assert row is not None
    assert row["source"] == "http"
    assert await count(db) == 0


async def test_bad_readings_in_an_array_leave_every_neighbour_stored(client: httpx.AsyncClient, db: Connection) -> None:
    bad = [json.dumps(document(**changes)) for changes, _ in BAD_FIELDS.values()]
    bad += ['{"vehicleId":"E","soc":NaN}', '{"vehicleId":"E","soc":1e999}', "7", "null", "{}", '"\\ud800"', "[[[]]]"]
    good = [encode(reading).decode() for reading in minutes("EV_1", len(bad) + 1)]
    mixed = [good[0]]
    for index, text in enumerate(bad):
        mixed += [text, good[index + 1]]
    answer = await post(client, f"[{','.join(mixed)}]".encode())
    assert answer.status_code == 207, answer.text
    assert answer.json()["stored"] == len(good)
    assert [r["index"] for r in answer.json()["rejected"]] == list(range(1, 2 * len(bad), 2))
    assert await count(db) == len(good)


NOT_JSON = {
    "empty": b"",
    "text": b"hello",
    "cut off": b'{"vehicleId":',
    "nul": b"\0",
    "deep": b'{"a":' * 100_000,
    "deep and large": b'{"a":[' * 500_000,
    "two documents": b"{} {}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_body_that_is_not_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    assert len(assert_problem(await post(client, body), 400, "not JSON")["detail"]) > len("not JSON: ")


ARRAYS_THAT_ARE_NOT_JSON = {
    "bad token": lambda good: b"[" + good + b',{"vehicleId":"E","soc":nan}]',
    "cut off": lambda good: b"[" + good + b',{"vehicleId":"E","so',
    "deep": lambda good: b"[" + good + b"," + b"[" * 1_000_000,
    "two documents": lambda good: b"[" + good + b"]{}",
    "byte order mark": lambda good: b"\xef\xbb\xbf[" + good + b",.5]",
}


@pytest.mark.parametrize("broken", ARRAYS_THAT_ARE_NOT_JSON.values(), ids=ARRAYS_THAT_ARE_NOT_JSON.keys())
async def test_array_that_is_not_json_as_a_whole_keeps_its_good_elements(
    client: httpx.AsyncClient, db: Connection, broken: Callable[[bytes], bytes]
) -> None:
    answer = await post(client, broken(encode(vehicle())))
    assert answer.status_code == 207, answer.text
    assert (answer.json()["stored"], [r["index"] for r in answer.json()["rejected"]]) == (1, [1])
    assert await count(db) == 1


async def test_array_of_nothing_but_brackets_is_one_bad_reading(client: httpx.AsyncClient) -> None:
    assert_problem(await post(client, b"[" * 1_000_000), 422, "not_json")


async def test_bad_utf8_rejects_only_its_reading(client: httpx.AsyncClient, db: Connection) -> None:
    bad = encode(vehicle()).replace(b'"EV_002"', b'"EV_\xff"')
    answer = await post(client, b"[" + encode(vehicle()) + b"," + bad + b"]")
    assert answer.status_code == 207
    assert await count(db) == 1


async def test_unknown_fields_are_kept(client: httpx.AsyncClient) -> None:
    await post(client, json.dumps(document(tripKm=12345.678901234567)).encode())
    live = (await client.get("/v1/live/vehicles/EV_002")).json()
    assert live["extra"] == {"tripKm": 12345.678901234567}


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7", b'"x"'])
async def test_json_without_a_reading_is_422(client: httpx.AsyncClient, body: bytes) -> None:
    assert_problem(await post(client, body), 422, "not_a_reading")


async def test_body_over_the_limit_is_413(client: httpx.AsyncClient, db: Connection) -> None:
    assert_problem(await post(client, b" " * 10_000_000), 413)

    async def stream() -> Any:
        for _ in range(10):
            yield b" " * 1_000_000

    assert_problem(await client.post("/v1/ingest", content=stream(), headers=JSON), 413)
    assert (await post(client, encode(vehicle()))).status_code == 201


@pytest.mark.parametrize("headers", [JSON, NDJSON])
async def test_more_than_ten_thousand_readings_is_413(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    separator = b"\n" if headers is NDJSON else b","
    body = separator.join([b"1"] * 10_001)
    assert_problem(await post(client, body if headers is NDJSON else b"[" + body + b"]", headers), 413, "10000")


async def test_others_are_answered_while_a_large_body_is_decoded(client: httpx.AsyncClient) -> None:
    """Ten thousand invalid readings with many unknown fields: a second of work."""
    element = b'{"vehicleId":"EV_1",' + b",".join(b'"%d":[]' % n for n in range(90)) + b"}"
    body = b"[" + b",".join([element] * 10_000) + b"]"
    began, longest_s = time.monotonic(), 0.0
    posting = asyncio.create_task(post(client, body))
    while not posting.done():
        asked = time.monotonic()
        assert (await client.get("/healthz")).status_code == 200
        longest_s = max(longest_s, time.monotonic() - asked)
    assert posting.result().status_code == 422
    assert longest_s < (time.monotonic() - began) / 2, "the event loop was blocked"


async def test_others_are_stored_while_a_body_of_many_rejects_is(
    client: httpx.AsyncClient, api: Api, token: str, db: Connection
) -> None:
    """Ten thousand rejects are written in pieces, and the readings of others between them."""
    bodies = [json.dumps([f"{body} {n}" for n in range(10_000)]).encode() for body in range(3)]
    heavy = [asyncio.create_task(post(client, body)) for body in bodies]
    await until(lambda: db.fetchval("SELECT EXISTS (SELECT FROM rejected_message)"))
    async with api.client(token) as other:
        assert (await post(other, encode(vehicle()))).status_code == 201
    assert not any(task.done() for task in heavy)
    answers = [await task for task in heavy]
    assert [answer.status_code for answer in answers] == [422] * 3
    indexes = [rejected["index"] for rejected in answers[0].json()["rejected"]]
    assert indexes == sorted(set(indexes))


async def test_gzip_bomb_is_413(client: httpx.AsyncClient) -> None:
    bomb = gzip.compress(b" " * 500_000_000, 9)
    assert len(bomb) < 1_000_000
    assert_problem(await post(client, bomb, JSON | {"Content-Encoding": "gzip"}), 413)


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"{}", mtime=0)[:-9]])
async def test_broken_gzip_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    assert_problem(await post(client, body, JSON | {"Content-Encoding": "gzip"}), 400, "gzip")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        JSON | {"Content-Encoding": "br"},
    ],
)
async def test_other_types_and_encodings_are_415(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert_problem(await post(client, encode(vehicle()), headers), 415)


async def test_post_is_503_when_the_store_is_away_and_stored_once_when_it_is_back(
    start_api: Callable[..., Api], token: str, db: Connection, postgres: Postgres
) -> None:
    api = start_api(commit_timeout_s=1)
    async with api.client(token) as client:
        assert (await post(client, encode(vehicle()))).status_code == 201  # the key is known, for a second
        body = encode(vehicle(at=now_minute() - timedelta(minutes=1)))
        postgres.sql("ALTER DATABASE api ALLOW_CONNECTIONS false")
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'fleet-%'")
        away = await post(client, body)
        assert_problem(away, 503, "unavailable")
        assert int(away.headers["retry-after"]) >= 1
        assert_problem(await client.get("/readyz"), 503)
        assert (await client.get("/healthz")).status_code == 200
        postgres.sql("ALTER DATABASE api ALLOW_CONNECTIONS true")
        api.wait_until("/readyz")

        async def stored() -> bool:  # the writer may be in the last of its pauses when the database is back
            return (await post(client, body)).status_code == 201

        await until(stored)
    assert await count(db) == 2


async def test_waiting_posts_are_answered_when_the_service_stops(
    start_api: Callable[..., Api], token: str, db: Connection
) -> None:
    api = start_api()
    await db.execute("BEGIN; LOCK TABLE vehicle_live_status IN EXCLUSIVE MODE")
    async with api.client(token) as client:
        waiting = [asyncio.create_task(post(client, encode(vehicle(f"EV_{n}")))) for n in range(5)]
        await blocked(db)
        api.process.send(signal.SIGTERM)
        await until(lambda: not is_open(api.port))
        await db.execute("COMMIT")
        answers = await asyncio.gather(*waiting)
    await until(lambda: not api.process.running)
    assert api.process.exit_code == 0
    assert {answer.status_code for answer in answers} == {201}
    assert await count(db) == 5


async def test_client_that_hangs_up_does_not_break_the_batch(api: Api, token: str, db: Connection) -> None:
    await db.execute("BEGIN; LOCK TABLE vehicle_live_status IN EXCLUSIVE MODE")
    async with api.client(token) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/ingest", content=encode(vehicle("EV_1")), headers=JSON, timeout=0.3)
        patient = asyncio.create_task(post(client, encode(vehicle("EV_2"))))
        await db.execute("COMMIT")
        assert (await patient).status_code == 201
    assert await count(db) == 2


async def test_full_ingest_is_503(start_api: Callable[..., Api], token: str, db: Connection) -> None:
    api = start_api(buffer_capacity=1)
    await db.execute("BEGIN; LOCK TABLE vehicle_live_status IN EXCLUSIVE MODE")
    async with api.client(token) as client:
        first = asyncio.create_task(post(client, encode(vehicle("EV_1"))))
        await blocked(db)
        refused = await post(client, encode(vehicle("EV_2")))
        assert_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        await db.execute("COMMIT")
        assert (await first).status_code == 201
