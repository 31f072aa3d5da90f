"""Attacks on the real process: none gets access, stops the process or obtains internal details."""

import asyncio
import gzip
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import Response

from api import keyring, keys
from api.app import application
from api.auth import Scope, new_token
from api.routing import Access, RouteTable
from bridge.formats.contract_json import encode, encode_many
from bridge.reading import Reading
from local.postgres import Postgres
from tests.integration.api.server import Api, Connection, assert_problem
from tests.readings import meter, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def cli(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api", "key", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **api.env}, check=False)


async def make(db: Connection, *scopes: Scope, **grant: Any) -> str:
    return (await keys.create(db, "test", keys.Grant(scopes, **grant)))[1]


def id_of(token: str) -> str:
    return token.split("_")[1]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def operations() -> list[tuple[str, str, Access]]:
    """Every route that needs a key: method, path with its parameters filled in, and who may call it."""
    endpoints = RouteTable(application(Response()).routes).endpoints()
    found: list[tuple[str, str, Access]] = [
        (method, re.sub(r"\{\w+\}", "X_1", endpoint.path.replace("{from}", "2026-02-10T10:15:00Z")), endpoint.access)
        for method, endpoint in endpoints
        if endpoint.access != "public"
    ]
    assert len(found) >= 40
    return found


async def test_every_route_refuses_no_key_and_every_bad_key(api: Api, db: Connection) -> None:
    revoked, expired = await make(db, "admin"), await make(db, "admin", lifetime=timedelta(0))
    await keys.revoke(db, id_of(revoked))
    good = await make(db, "admin")
    bad = {
        "revoked": revoked,
        "expired": expired,
        "unknown": new_token()[1],
        "wrong secret": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "another's secret": f"fleet_{id_of(good)}_{new_token()[1].split('_', 2)[2]}",
        "nonsense": "' OR 1=1 --",
        "long": "x" * 5_000,
    }
    async with api.client() as client:
        for method, path, _ in operations():
            anonymous = await client.request(method, path)
            assert_problem(anonymous, 401, "API key is required")
            assert anonymous.headers["www-authenticate"] == "Bearer"
            assert_problem(await client.request(method, path, headers={"Authorization": f"Basic {good}"}), 401)
            for token in bad.values():
                answer = await client.request(method, path, headers=bearer(token))
                assert_problem(answer, 401)
                assert "invalid_token" in answer.headers["www-authenticate"]


async def test_every_route_refuses_each_wrong_scope_and_takes_the_right_one(api: Api, db: Connection) -> None:
    tokens = {scope: await make(db, scope) for scope in keys.SCOPES}
    async with api.client() as client:
        for method, path, needed in operations():
            for scope, token in tokens.items():
                async with client.stream(method, path, headers=bearer(token)) as answer:  # the live stream does not end
                    if needed == "any key" or scope in (needed, "admin"):
                        assert answer.status_code not in (401, 403), (method, path, scope)
                    else:
                        await answer.aread()
                        assert_problem(answer, 403, needed)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/live/vehicles/", "//v1/ingest", "/metrics/", "/docs/../metrics"])
async def test_unknown_paths_need_a_key_too(api: Api, path: str) -> None:
    async with api.client() as client:
        assert_problem(await client.get(path), 401)


async def test_key_on_the_command_line_from_create_to_revoke(api: Api, db: Connection) -> None:
    created = cli(api, "create", "depot", "--scope", "read", "--expires", "30d")
    token = created.stdout.strip()
    assert re.fullmatch(r"fleet_[a-z0-9]{12}_[\w-]{43}", token)
    async with api.client(token) as client:
        assert (await client.get("/v1/live/vehicles")).status_code == 200
        listed = cli(api, "list")
        (row,) = [json.loads(line) for line in listed.stdout.splitlines()]
        assert (row["id"], row["name"], row["scopes"]) == (id_of(token), "depot", ["read"])
        assert token.split("_", 2)[2] not in listed.stdout
        assert cli(api, "revoke", row["id"]).returncode == 0
        assert_problem(await client.get("/v1/live/vehicles"), 401, "revoked")
    assert cli(api, "revoke", row["id"]).returncode == 1
    trail = await db.fetch("SELECT actor, action, subject FROM audit_log ORDER BY id")
    assert [(t["action"], t["subject"]) for t in trail] == [
        ("key.create", f"key:{row['id']}"),
        ("key.revoke", f"key:{row['id']}"),
    ]
    assert all(t["actor"].startswith("cli:") for t in trail)


async def test_rotated_key_and_its_successor_live_side_by_side(api: Api, db: Connection) -> None:
    old = await make(db, "ingest", devices=("EV_1",))
    new = cli(api, "rotate", id_of(old), "--overlap", "1h").stdout.strip()
    async with api.client() as client:
        for token in (old, new):
            answer = await client.post("/v1/ingest", content=encode(vehicle("EV_1")), headers=JSON | bearer(token))
            assert answer.status_code == 201
            foreign = await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON | bearer(token))
            assert foreign.status_code == 403
        ended = cli(api, "rotate", id_of(new), "--overlap", "0s").stdout.strip()
        answer = await client.post("/v1/ingest", content=encode(vehicle("EV_1")), headers=JSON | bearer(new))
        assert_problem(answer, 401, "expired")
    row = await db.fetchrow("SELECT replaces FROM api_key WHERE id = $1", id_of(ended))
    assert row is not None
    assert row["replaces"] == id_of(new)
    assert await db.fetchval("SELECT count(*) FROM audit_log WHERE action = 'key.rotate'") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--scope", "root"),
        ("create", "x", "--device", "a/b"),
        ("create", "x", "--device", "*"),
        ("create", "x", "--device", "EV_1", "--scope", "assign"),
        ("create", "x", "--site", "Depot", "--scope", "admin"),
        ("create", "x", "--site", ""),
        ("create", "x", "--site", "two\nlines"),
        ("create", "x", "--site", "x" * 201),
        ("create", "x", "--expires", "soon"),
        ("create", "x", "--expires", "0d"),
        ("create", "x", "--expires", "99999999d"),
        ("create", ""),
        ("create", "two\nlines"),
        ("create", "x" * 201),
        ("rotate", "nobody"),
    ],
)
async def test_key_that_makes_no_sense_is_refused(api: Api, db: Connection, arguments: tuple[str, ...]) -> None:
    refused = cli(api, *arguments)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert await db.fetchval("SELECT count(*) FROM api_key") == 0


async def test_revocation_is_heard_of_sooner_than_the_key_is_forgotten(api: Api, db: Connection) -> None:
    heard_after_s: list[float] = []
    for _ in range(20):
        token = await make(db, "read")
        async with api.client(token) as client:
            assert (await client.get("/v1/live/vehicles")).status_code == 200
            await keys.revoke(db, id_of(token))
            began = time.monotonic()
            while (await client.get("/v1/live/vehicles")).status_code == 200:
                assert time.monotonic() - began < 20
            heard_after_s.append(time.monotonic() - began)
            assert_problem(await client.get("/v1/live/vehicles"), 401, "revoked")
    assert statistics.median(heard_after_s) < keyring.REMEMBERED_S / 2  # one of them may meet a busy machine


async def test_no_key_is_cached_without_a_listening_connection(api: Api, db: Connection, postgres: Postgres) -> None:
    of_keyring = "FROM pg_stat_activity WHERE application_name = 'fleet-api-keys'"
    refused_after_s: list[float] = []
    for _ in range(5):
        token = await make(db, "read")
        await until(lambda: postgres.sql(f"SELECT count(*) {of_keyring}") == "1")
        async with api.client(token) as client:
            assert (await client.get("/v1/live/vehicles")).status_code == 200
            assert postgres.sql(f"SELECT count(pg_terminate_backend(pid)) {of_keyring}") == "1"
            await db.execute("ALTER TABLE api_key DISABLE TRIGGER announce")
            try:
                await keys.revoke(db, id_of(token))
                began = time.monotonic()
                while (await client.get("/v1/live/vehicles")).status_code == 200:
                    assert time.monotonic() - began < 20
                refused_after_s.append(time.monotonic() - began)
            finally:
                await db.execute("ALTER TABLE api_key ENABLE TRIGGER announce")
    assert statistics.median(refused_after_s) < keyring.REMEMBERED_S / 2


async def test_use_of_a_key_is_written_down(start_api: Callable[..., Api], token: str, db: Connection) -> None:
    api = start_api()
    async with api.client(token) as client:
        await client.get("/v1/live/vehicles")
    assert api.process.stop() == 0
    used = await db.fetchval("SELECT last_used_at FROM api_key WHERE id = $1", id_of(token))
    assert datetime.now(UTC) - used < timedelta(minutes=1)


async def test_device_key_may_report_its_device_only(api: Api, db: Connection) -> None:
    token = await make(db, "ingest", devices=("vehicle:EV_1",))
    async with api.client(token) as client:
        assert (await client.post("/v1/ingest", content=encode(vehicle("EV_1")), headers=JSON)).status_code == 201
        foreign = await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON)
        problem = assert_problem(foreign, 403, "forbidden")
        assert problem["rejected"][0]["index"] == 0
        other_kind = encode(meter("EV_1"))
        assert_problem(await client.post("/v1/ingest", content=other_kind, headers=JSON), 403)
    row = await db.fetchrow("SELECT * FROM rejected_message WHERE device = 'EV_2'")
    assert row is not None
    assert (row["reason"], row["source"]) == ("forbidden", "http")
    assert id_of(token) in row["detail"]
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encode(vehicle("EV_2")), "forbidden"),
        (encode(vehicle("EV_2", now_minute() - timedelta(days=200))), "forbidden"),
        (encode(vehicle("EV_1", now_minute() - timedelta(days=200))), "timestamp_out_of_range"),
        (b'{"soc": 1}', "not_a_reading"),
        (b"[%s, ?]" % encode(vehicle("EV_2")), "forbidden"),
    ],
)
async def test_every_key_that_sent_a_reject_is_named_once(
    api: Api, db: Connection, token: str, body: bytes, reason: str
) -> None:
    keys = [await make(db, "ingest", devices=("vehicle:EV_1",)) for _ in range(2)]
    for _ in range(2):
        for key in keys:
            async with api.client(key) as client:
                assert (await client.post("/v1/ingest", content=body, headers=JSON)).is_client_error
    rows = await db.fetch("SELECT sender, detail FROM rejected_message WHERE reason = $1", reason)
    assert sorted(row["sender"] for row in rows) == sorted(map(id_of, keys))
    if reason == "forbidden":
        assert all(f"key {row['sender']} is not allowed" in row["detail"] for row in rows)
    async with api.client(token) as client:
        found = (await client.get("/v1/rejects", params={"sender": id_of(keys[1]), "reason": reason})).json()["items"]
    assert [item["sender"] for item in found] == [id_of(keys[1])]


@pytest.mark.parametrize("spoiled", [b"}", b"}\0", b',"note":"\xff"}', b',"note":"\\ud800"}'])
@pytest.mark.parametrize("make_reading", [vehicle, meter])
async def test_reject_of_another_kind_is_forbidden_too(
    api: Api, db: Connection, make_reading: Callable[..., Reading], spoiled: bytes
) -> None:
    """It becomes a valid reading when a limit is raised, and a replay needs no key."""
    token = await make(db, "ingest", devices=("vehicle:EV_1",))
    late = encode(make_reading("EV_1", now_minute() - timedelta(days=200)))
    async with api.client(token) as client:
        answer = await client.post("/v1/ingest", content=late[:-1] + spoiled, headers=JSON)
    found = await db.fetchval("SELECT reason FROM rejected_message")
    expected = (422, "timestamp_out_of_range") if make_reading is vehicle else (403, "forbidden")
    assert (answer.status_code, found) == expected


async def test_foreign_reading_is_replayed_only_when_asked_for_by_name(
    api: Api, db: Connection, database_url: str
) -> None:
    token = await make(db, "ingest", devices=("EV_1",))
    async with api.client(token) as client:
        assert_problem(await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON), 403)
    reject = str(await db.fetchval("SELECT id FROM rejected_message"))
    for arguments in (["--reason", "forbidden"], [reject]):
        left = await asyncio.to_thread(replay, database_url, *arguments)
        assert left.returncode == 1
        said = (
            f"{reject} forbidden: key {id_of(token)} is not allowed to send readings of vehicle EV_2; "
            "use --even-forbidden "
        )
        assert left.stdout.startswith(said)
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 0
    assert await db.fetchval("SELECT count(*) FROM audit_log WHERE action = 'rejected.replay'") == 0
    asked = await asyncio.to_thread(replay, database_url, reject, "--even-forbidden")
    assert (asked.returncode, asked.stdout) == (0, f"{reject} stored\n")
    assert await db.fetchval("SELECT vehicle_id FROM vehicle_telemetry_history") == "EV_2"
    trail = await db.fetchval("SELECT detail FROM audit_log WHERE action = 'rejected.replay'")
    assert json.loads(trail) == {"reason": "forbidden", "result": "stored"}


def replay(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge", "rejected", "replay", *arguments]
    env = {**os.environ, "FLEET_DATABASE_URL": database_url}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


async def test_foreign_reading_in_an_array_is_rejected_alone(api: Api, db: Connection) -> None:
    token = await make(db, "ingest", devices=("EV_*", "METER_001"))
    body = encode_many([vehicle("EV_1"), vehicle("XX_1"), meter("METER_001"), meter("METER_0011")])
    async with api.client(token) as client:
        answer = await client.post("/v1/ingest", content=body, headers=JSON)
    assert answer.status_code == 207
    assert answer.json()["stored"] == 2
    assert [r["index"] for r in answer.json()["rejected"]] == [1, 3]
    assert all(r["reason"].startswith("forbidden") for r in answer.json()["rejected"])


async def test_too_many_requests_with_one_key_is_429(start_api: Callable[..., Api], token: str, db: Connection) -> None:
    api = start_api(rate_limit_per_s=0.1, rate_limit_burst=3)
    other = await make(db, "read")
    async with api.client(token) as client:
        assert [(await client.get("/v1/live/vehicles")).status_code for _ in range(3)] == [200] * 3
        refused = await client.get("/v1/live/vehicles")
        assert_problem(refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert (await client.get("/v1/live/vehicles", headers=bearer(other))).status_code == 200


def exchange(api: Api, sent: bytes) -> bytes:
    """The bytes that the server sends until it closes the connection."""
    with api.socket() as connection:
        connection.sendall(sent)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received


async def test_slow_sender_is_cut(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(http_body_timeout_s=0.5, http_head_timeout_s=0.5)
    head = f"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n"
    slow_body = await asyncio.to_thread(exchange, api, head.encode() + b"{")
    assert slow_body.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in slow_body
    assert (await asyncio.to_thread(exchange, api, b"GET / HTTP/1.1\r\nHos")).startswith(b"HTTP/1.1 408")
    assert (await asyncio.to_thread(exchange, api, b"")).startswith(b"HTTP/1.1 408")


async def test_time_in_which_the_process_stands_still_is_not_the_senders(
    start_api: Callable[..., Api], token: str, db: Connection
) -> None:
    api = start_api(http_body_timeout_s=0.5)
    body = encode(vehicle("EV_1"))
    head = (
        f"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )

    def send() -> bytes:
        with api.socket() as connection:
            connection.sendall(head.encode())
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100"), "the API waits for the body"
            api.process.send(signal.SIGSTOP)
            time.sleep(2)
            api.process.send(signal.SIGCONT)
            time.sleep(0.2)
            connection.sendall(body)
            return connection.recv(65_536)

    assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 201")
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1


async def test_body_that_was_answered_early_may_not_go_on_for_ever(start_api: Callable[..., Api]) -> None:
    api = start_api(http_head_timeout_s=0.5)
    head = b"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"

    def trickle() -> bool:
        with api.socket() as connection:
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
            for _ in range(200):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return True
                time.sleep(0.05)
        return False

    assert await asyncio.to_thread(trickle)


async def test_endless_head_is_cut(api: Api) -> None:
    for sent in (
        b"GET /" + b"x" * 40_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6_000,
        b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000,
    ):
        assert (await asyncio.to_thread(exchange, api, sent)).startswith(b"HTTP/1.1 431")
    assert (await asyncio.to_thread(exchange, api, b"\x16\x03\x01 no http\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_idle_connections_do_not_keep_others_out_for_long(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(http_max_connections=20, http_keep_alive_s=1)
    idle = []
    request = f"GET /v1/live/vehicles HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    for _ in range(20):
        idle.append(connection := api.socket())
        connection.sendall(request)
        assert (await asyncio.to_thread(connection.recv, 12)) == b"HTTP/1.1 200"
    refused = await asyncio.to_thread(exchange, api, b"")
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in refused.lower()
    await asyncio.to_thread(read_all, idle[0])
    async with api.client(token) as client:
        assert (await client.get("/v1/live/vehicles")).status_code == 200
    for connection in idle:
        connection.close()


async def test_gzip_bomb_does_not_grow_the_process(api: Api, token: str) -> None:
    bomb = gzip.compress(b"0" * 300_000_000, 9)
    before = _peak_kib(api)
    async with api.client(token) as client:
        for _ in range(5):
            answer = await client.post("/v1/ingest", content=bomb, headers=JSON | {"Content-Encoding": "gzip"})
            assert_problem(answer, 413)
    assert _peak_kib(api) - before < 60_000


def _peak_kib(api: Api) -> int:
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE api_key; --", "1 OR 1=1", "$1", "%27%20OR%201%3D1", "../../etc/passwd"]
)
async def test_sql_in_ids_and_values_is_only_text(client: httpx.AsyncClient, db: Connection, text: str) -> None:
    for path in ("/v1/live/vehicles/", "/v1/history/meters/", "/v1/analytics/performance/"):
        assert (await client.get(path + text)).status_code in (404, 422)
    for query in ("cursor", "from", "to", "limit"):
        assert (await client.get("/v1/history/meters/M", params={query: text})).status_code == 422
    reading = {**json.loads(encode(vehicle())), "note": text}
    assert (await client.post("/v1/ingest", json=reading)).status_code == 201
    assert (await client.get("/v1/live/vehicles/EV_002")).json()["extra"] == {"note": text}
    assert await db.fetchval("SELECT count(*) FROM api_key") == 1


async def test_internal_error_reveals_no_details(client: httpx.AsyncClient, db: Connection, api: Api) -> None:
    await db.execute("ALTER TABLE vehicle_live_status RENAME COLUMN soc TO charge")
    try:
        answer = await client.get("/v1/live/vehicles")
    finally:
        await db.execute("ALTER TABLE vehicle_live_status RENAME COLUMN charge TO soc")
    assert answer.status_code in (500, 503)
    assert_problem(answer, answer.status_code)
    assert "soc" not in answer.text
    assert "soc" in api.log


async def test_logs_hold_no_secret(start_api: Callable[..., Api], token: str, db: Connection) -> None:
    api = start_api(log_level="debug")
    revoked = await make(db, "admin")
    await keys.revoke(db, id_of(revoked))
    async with api.client() as client:
        for secret in (token, revoked, "nonsense-secret"):
            await client.get("/v1/live/vehicles", headers=bearer(secret))
            await client.post("/v1/ingest", content=b"{", headers=JSON | bearer(secret))
        await client.get("/v1/live/vehicles", params={"cursor": token}, headers=bearer(token))
    api.process.stop()
    password = re.findall(r"://api:([^@]+)@", api.env["FLEET_DATABASE_URL"])[0]
    for secret in (token.split("_", 2)[2], revoked.split("_", 2)[2], "nonsense-secret", password):
        assert secret not in api.log


async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/docs", "/nowhere", "/v1/live/vehicles"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert "strict-transport-security" not in headers
        assert "access-control-allow-origin" not in headers


async def test_browsers_of_named_origins_only(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(cors_origins="https://fleet.example")
    async with api.client() as client:
        preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        ours = await client.options("/v1/live/vehicles", headers=preflight | {"Origin": "https://fleet.example"})
        assert ours.headers["access-control-allow-origin"] == "https://fleet.example"
        theirs = await client.options("/v1/live/vehicles", headers=preflight | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in theirs.headers


async def test_keys_outlive_a_restart(start_api: Callable[..., Api], db: Connection) -> None:
    alive, revoked = await make(db, "read"), await make(db, "read")
    await keys.revoke(db, id_of(revoked))
    assert start_api().process.stop() == 0
    async with start_api().client() as client:
        assert (await client.get("/v1/live/vehicles", headers=bearer(alive))).status_code == 200
        assert_problem(await client.get("/v1/live/vehicles", headers=bearer(revoked)), 401, "revoked")


async def test_audit_trail_cannot_be_changed(db: Connection, token: str) -> None:
    for statement in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(Exception, match="append-only"):
            await db.execute(statement)


async def test_tls_from_certificate_and_key(start_api: Callable[..., Api], token: str, tmp_path: Path) -> None:
    cert_file, key_file = _certificate(tmp_path)
    api = start_api(tls_cert_file=cert_file, tls_key_file=key_file)
    trusted = ssl.create_default_context(cafile=str(cert_file))
    async with api.client(token, verify=trusted) as client:
        answer = await client.post("/v1/ingest", content=encode(vehicle()), headers=JSON)
    assert answer.status_code == 201
    assert "max-age" in answer.headers["strict-transport-security"]


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(private_key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file
