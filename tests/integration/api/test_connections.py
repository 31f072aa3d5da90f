"""What one client can occupy, and requests that RFC 9110 and RFC 9112 allow although few clients send them."""

import asyncio
import contextlib
import gzip
import re
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from api import keys
from bridge.formats.contract_json import encode
from tests.integration.api.server import Api, Connection
from tests.readings import now_minute, vehicle
from tests.until import until, wait_until

pytestmark = pytest.mark.anyio

VICTIM_S = 5.0  # of a machine that runs other tests; the faults took 20 s and more


@pytest.fixture
async def other(db: Connection) -> str:
    """Another key, of the client that goes on meanwhile."""
    return (await keys.create(db, "victim", keys.Grant(keys.DEFAULT_SCOPES)))[1]


def head_of(token: str, *headers: str, method: str = "POST", path: str = "/v1/ingest") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(connection: socket.socket, *parts: bytes) -> bytes:
    """Send in several segments, shut down the sending side, and read until the server closes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        connection.sendall(part)
        if len(parts) > 1:
            time.sleep(0.02)  # so that the parts are segments of their own
    with contextlib.suppress(OSError):  # the server has answered and closed
        connection.shutdown(socket.SHUT_WR)
    received = b""
    with contextlib.suppress(ConnectionResetError):  # it has closed before it has read everything
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


UPGRADES = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")


@pytest.mark.parametrize("upgrade", [(), UPGRADES, ("Connection: upgrade", "Upgrade: websocket")])
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("cuts", [(), (0,), (-1,), (-5, 20)])
async def test_half_closed_and_upgrading_requests_are_answered_and_the_next_one_works(
    upgrade: tuple[str, ...], is_chunked: bool, cuts: tuple[int, ...], api: Api, token: str, db: Connection
) -> None:
    body = encode(vehicle())
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    headers = ("Content-Type: application/json", framing)
    whole = head_of(token, *headers, *upgrade) + (chunked(body) if is_chunked else body)
    whole += head_of(token, method="GET", path="/v1/live/vehicles/EV_002")
    begin = whole.index(b"\r\n\r\n") + 4
    edges = [0, *(begin + cut for cut in cuts), len(whole)]
    with api.socket() as connection:
        answer = await asyncio.to_thread(exchange, connection, *(whole[a:b] for a, b in pairwise(edges)))
    first, second = answer.index(b"HTTP/1.1 201"), answer.index(b"HTTP/1.1 200")
    assert first < second, answer
    assert answer.count(b"HTTP/1.1") == 2, answer
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1


@pytest.mark.parametrize("later", [False, True])
async def test_wrong_size_of_a_chunk_is_answered(later: bool, api: Api, token: str, db: Connection) -> None:
    head = head_of(token, "Content-Type: application/json", "Transfer-Encoding: chunked")
    parts = [head + b"1\r\n[\r\n", b"no size\r\n"] if later else [head + b"no size\r\n"]
    with api.socket() as connection:
        answer = await asyncio.to_thread(exchange, connection, *parts)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"HTTP/1.1") == 1, answer
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 0


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"x" * 70_000), 431),
        (b"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: %b\r\nContent-Length: 9\r\n\r\n[[[[[[[[[" % (b"x" * 70_000), 431),
    ],
    ids=["garbage", "connect", "long head", "chunk", "long head with a body"],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_request_before_a_malformed_one_gets_its_own_answer(
    bad: bytes, status: int, apart: bool, api: Api, token: str, db: Connection
) -> None:
    body = encode(vehicle())
    good = head_of(token, "Content-Type: application/json", f"Content-Length: {len(body)}") + body
    with api.socket() as connection:
        answer = await asyncio.to_thread(exchange, connection, *([good, bad] if apart else [good + good + bad]))
    expected = [201, status] if apart else [201, 201, status]
    assert [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", answer)] == expected, answer
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1


async def test_upgrade_without_a_body_is_ignored(api: Api, token: str) -> None:
    request = head_of(token, *UPGRADES, method="GET", path="/v1/live/vehicles")
    with api.socket() as connection:
        answer = await asyncio.to_thread(exchange, connection, request * 3)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b"HTTP/1.1") == 3


async def test_small_answer_comes_as_a_whole(api: Api, token: str) -> None:
    """Head and body were two segments, each with a system call, and for the client two reads."""
    request = head_of(token, method="GET", path="/v1/live/vehicles")
    with api.socket() as connection:
        for _ in range(30):
            connection.sendall(request)
            answer = await asyncio.to_thread(connection.recv, 65_536)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head.lower()
            assert body


async def victim_s(api: Api, token: str) -> float:
    """How long it takes until a reading of another device is stored."""
    began = time.monotonic()
    async with api.client(token) as client:
        one = encode(vehicle())
        answer = await client.post("/v1/ingest", content=one, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    return time.monotonic() - began


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_announced_bodies_that_do_not_arrive_take_nothing_from_others(
    is_chunked: bool, start_api: Callable[..., Api], token: str, other: str
) -> None:
    api = start_api()
    framing, begin = ("Transfer-Encoding: chunked", b"1\r\n[\r\n") if is_chunked else ("Content-Length: 8000000", b"[")
    attackers = [api.socket() for _ in range(300)]
    for attacker in attackers:
        attacker.sendall(head_of(token, framing) + begin)
    assert await victim_s(api, other) < VICTIM_S
    assert await victim_s(api, token) < VICTIM_S
    for attacker in attackers:
        assert (await asyncio.to_thread(attacker.recv, 12)) == b"HTTP/1.1 408"
        attacker.close()


async def test_large_bodies_of_one_key_leave_room_for_others_and_small_ones(
    start_api: Callable[..., Api], token: str, other: str
) -> None:
    api = start_api(http_body_budget_mib=16)
    large = b"[" + b" " * 7_000_000
    attackers = [api.socket() for _ in range(8)]
    for attacker in attackers:
        attacker.settimeout(0.3)
        try:
            attacker.sendall(head_of(token, "Content-Length: 8000000") + large)
        except TimeoutError:  # refused, and not read any more
            continue
    answers = []
    for attacker in attackers:
        try:
            answers.append(attacker.recv(12))
        except (TimeoutError, ConnectionResetError):
            answers.append(b"")
    assert b"HTTP/1.1 503" in answers
    assert b"" in answers
    assert await victim_s(api, other) < VICTIM_S
    for attacker in attackers:
        attacker.close()


async def test_gzip_is_charged_for_what_comes_out(start_api: Callable[..., Api], token: str, other: str) -> None:
    api = start_api(http_body_budget_mib=16)
    bomb = gzip.compress(b"[" + b" " * 8_000_000 + encode(vehicle()) + b"]", 9)
    before = peak_kib(api)

    async def post() -> int:
        async with api.client(token) as client:
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            return (await client.post("/v1/ingest", content=bomb, headers=headers)).status_code

    statuses = await asyncio.gather(*(post() for _ in range(100)))
    assert set(statuses) <= {201, 503}
    assert 201 in statuses
    assert await victim_s(api, other) < VICTIM_S
    assert peak_kib(api) - before < 100_000


async def test_refused_bodies_leave_no_memory(start_api: Callable[..., Api], token: str) -> None:
    """An error kept the body of its request until the next collection: 800 MB in a few seconds."""
    api = start_api()
    before = peak_kib(api)
    async with api.client(token) as client:
        for body in (b'{"[' * 2_600_000, b"[" + b"0," * 4_000_000 + b"0]") * 15:
            answer = await client.post("/v1/ingest", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 413)
    assert peak_kib(api) - before < 100_000


async def test_questions_of_clients_that_have_gone_leave_time_for_others(
    start_api: Callable[..., Api], token: str, other: str, db: Connection
) -> None:
    """Pages of history for clients that had closed kept others waiting for 15 s."""
    await with_large_history(db)
    api = start_api(http_write_timeout_s=1)
    request = head_of(token, method="GET", path="/v1/history/vehicles/EV_X?limit=10000")
    waiting = [api.socket() for _ in range(200)]
    for connection in waiting:
        connection.sendall(request)
    for connection in waiting:
        connection.close()
    assert await victim_s(api, other) < VICTIM_S
    api.process.kill()  # it would answer them first: a client that closes may only have shut down its sending side


def peak_kib(api: Api) -> int:
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


async def test_client_that_does_not_read_is_cut(start_api: Callable[..., Api], token: str, other: str) -> None:
    api = start_api(http_write_timeout_s=1, http_max_connections=40)
    deaf = []
    for _ in range(20):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", api.port))
        connection.sendall(head_of(token, method="GET", path="/openapi.json") * 30)
        deaf.append(connection)
    assert await victim_s(api, other) < VICTIM_S
    wait_until(lambda: connections_of(api) == 0, "all connections are closed")
    for connection in deaf:
        connection.close()


def connections_of(api: Api) -> int:
    """Open connections of clients."""
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == api.port
        for one in psutil.Process(api.process.pid).net_connections("tcp")
    )


@pytest.mark.parametrize("has_key", [True, False])
async def test_more_pipelined_requests_than_anybody_sends_end_the_connection(
    has_key: bool, api: Api, token: str
) -> None:
    request = head_of(token, method="GET", path="/v1/live/vehicles") if has_key else b"GET / HTTP/1.1\r\n\r\n"
    with api.socket() as connection:
        connection.sendall(request * 400)
        received = b""
        try:
            while chunk := await asyncio.to_thread(connection.recv, 65_536):
                received += chunk
        except ConnectionResetError:
            pass
    assert received.count(b"HTTP/1.1 200") < 100


async def test_connections_of_an_address_are_bounded(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(http_max_connections_per_address=5)
    held = [api.socket() for _ in range(5)]
    with api.socket() as further:
        assert further.recv(12) == b"HTTP/1.1 503"
    held.pop().close()
    wait_until(lambda: connections_of(api) == 4, "one is closed")
    assert await victim_s(api, token) < VICTIM_S
    for connection in held:
        connection.close()


async def test_connections_without_a_key_give_way_to_others(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(http_max_connections=40, http_head_timeout_s=60)
    idle = [api.socket() for _ in range(39)]
    assert await victim_s(api, token) < VICTIM_S
    assert connections_of(api) <= 20
    for connection in idle:
        connection.close()


async def test_unknown_keys_reach_the_database_up_to_a_rate_only(api: Api, token: str, other: str) -> None:
    """6,500 a second each cost a look-up on the connections that answer questions."""

    def guesses(n: int) -> list[bytes]:
        """The statuses of four requests with keys of their own, sent together on one connection."""
        keys = [f"fleet_{n + m:012}_{token[-43:]}" for m in range(4)]
        heads = [head_of(key, method="GET", path="/v1/live/vehicles") for key in keys]
        with api.socket() as connection:
            return re.findall(rb"HTTP/1\.1 (\d+)", exchange(connection, b"".join(heads)))

    await victim_s(api, other)
    began = time.monotonic()
    statuses: list[bytes] = []
    for n in range(0, 3_000, 4):
        statuses += await asyncio.to_thread(guesses, n)
    assert await victim_s(api, other) < VICTIM_S
    assert set(statuses) == {b"401", b"429"}
    assert statuses.count(b"401") <= 500 + 50 * (time.monotonic() - began) + 1


LARGE_HISTORY = """
INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, extra)
SELECT 'EV_X', $1::timestamptz - n * interval '1 s', 50, jsonb_build_object('note', repeat('x', 16000))
FROM generate_series(1, 2000) AS n
"""


async def with_large_history(db: Connection) -> None:
    end = now_minute()
    for day in {end.date(), (end - timedelta(hours=1)).date()}:
        await db.execute("SELECT ensure_partition('vehicle_telemetry_history', $1)", day)
    await db.execute(LARGE_HISTORY, end)
    await db.execute("INSERT INTO vehicle_live_status (vehicle_id, ts, received_at) VALUES ('EV_X', $1, $1)", end)


@pytest.mark.parametrize("form", ["application/json", "text/csv"])
async def test_answers_of_one_key_that_are_not_read_take_no_turn_of_others(
    form: str, start_api: Callable[..., Api], token: str, other: str, db: Connection
) -> None:
    """40 pages that were not read took 600 MB."""
    await with_large_history(db)
    api = start_api(http_write_timeout_s=2)
    before = peak_kib(api)
    request = head_of(token, f"Accept: {form}", method="GET", path="/v1/history/vehicles/EV_X?limit=10000")
    deaf = []
    for _ in range(40):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", api.port))
        connection.sendall(request)
        deaf.append(connection)
    began = time.monotonic()
    async with api.client(other) as client:
        assert (await client.get("/v1/live/vehicles/EV_X")).status_code == 200
    assert time.monotonic() - began < VICTIM_S
    assert await victim_s(api, other) < VICTIM_S
    async with api.client(token) as client:  # behind the others of its key, which are cut
        assert (await client.get("/v1/live/vehicles/EV_X")).status_code == 200
    assert peak_kib(api) - before < 250_000
    for connection in deaf:
        connection.close()


async def test_live_and_history_do_not_wait_for_figures(api: Api, token: str, other: str, db: Connection) -> None:
    """A dozen questions of one key about a year of the fleet took its turns, and those of two all connections."""
    year = {"from": (now_minute() - timedelta(days=365)).isoformat(), "to": now_minute().isoformat()}
    asked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'quarter_mark'::regclass"
    async with api.client(token) as client, api.client(other) as others:
        await client.post("/v1/ingest", content=encode(vehicle("EV_X")), headers={"Content-Type": "application/json"})
        questions: list[asyncio.Task[httpx.Response]] = []
        async with db.transaction():
            await db.execute("LOCK TABLE quarter_mark")  # so that the figures last until here
            for each in (client, others):
                for _ in range(12):
                    asking = each.get("/v1/analytics/energy", params={"of": "fleet", "bucket": "total", **year})
                    questions.append(asyncio.create_task(asking))
            await until(lambda: db.fetchval(f"{asked} HAVING count(*) = 8"), "all connections for figures are used")
            for each in (client, others):
                for path in ("/v1/live/vehicles/EV_X", "/v1/live/vehicles", "/v1/history/vehicles/EV_X"):
                    assert (await each.get(path)).status_code == 200
            assert not any(question.done() for question in questions)
        assert {answer.status_code for answer in await asyncio.gather(*questions)} == {200}


async def test_pages_of_history_are_bounded_in_bytes_and_miss_nothing(api: Api, token: str, db: Connection) -> None:
    """10,000 readings with the largest unknown fields were an answer of 160 MB."""
    notes = (
        "jsonb_build_object('note', (SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, 500) m))"
    )
    end = now_minute()
    for day in {end.date(), (end - timedelta(hours=1)).date()}:
        await db.execute("SELECT ensure_partition('vehicle_telemetry_history', $1)", day)
    await db.execute(
        "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, extra) SELECT 'EV_X', "
        f"$1::timestamptz - n * interval '1 s', 50, {notes} FROM generate_series(1, 3000) AS n",
        end,
    )
    await db.execute("INSERT INTO vehicle_live_status (vehicle_id, ts, received_at) VALUES ('EV_X', $1, $1)", end)
    before, times, sizes, cursor = peak_kib(api), [], [], None
    async with api.client(token) as client:
        while True:
            query = {"limit": "10000"} | ({"cursor": cursor} if cursor else {})
            answer = await client.get("/v1/history/vehicles/EV_X", params=query)
            assert answer.status_code == 200, answer.text
            sizes.append(len(answer.content))
            times += [item["timestamp"] for item in answer.json()["items"]]
            if (cursor := answer.json()["nextCursor"]) is None:
                break
        csv = await client.get("/v1/history/vehicles/EV_X", headers={"Accept": "text/csv"})
    assert len(times) == len(set(times)) == 3_000
    assert csv.text.count("EV_X") == 3_000
    assert max(sizes) < 16_000_000
    assert peak_kib(api) - before < 150_000
