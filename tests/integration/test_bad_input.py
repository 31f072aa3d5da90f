"""Invalid input of every kind, derived from the contract, over MQTT and HTTP: valid neighbours are stored.

A new measure or kind is covered without a change here.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import httpx
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from api import keys
from bridge.contract import KINDS, Kind, Measure
from bridge.formats.contract_json import encode, encode_many
from bridge.formats.port import MAX_READINGS_PER_MESSAGE
from bridge.reading import format_timestamp
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import Health, environment, serving
from tests.databases import new_database
from tests.devices import device, publish_with_paho
from tests.integration.api.server import launch
from tests.readings import minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Verdict = Literal["stored", "refused", "extra", "implausible", "rejected"]
"""Stored as it came, stored with a warning of this code, or not stored."""

JSON, NDJSON = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}


# -- What is sent


class Case(NamedTuple):
    """A reading with some fields changed (`...` removes one), and its expected result."""

    name: str
    fields: dict[str, Any]
    verdict: Verdict
    about: Sequence[str] = ()
    """What the warning or the reason names."""


def usual(measure: Measure) -> float:
    """A plausible value."""
    if measure.sort == "interval":
        return 0.5
    return 1000.0 if measure.sort == "register" else (measure.least + measure.most) / 2


_WRONG_TYPES: list[object] = ["1", "", True, False, [], [1], {}, {"value": 1}, "\0", "x" * 20_000]
_NO_NUMBERS: list[float] = [float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 10**30]
_NO_IDS: list[object] = [..., None, 7, True, "", "a b", "x" * 65, [], {}]
_NO_TIMES: list[object] = [..., None, 1770718500, "", "now", "2026-02-10T10:15:00", "2026-02-30T10:15:00Z", [], True]


def cases(kind: Kind) -> Iterator[Case]:
    every = [measure.name for measure in kind.measures]
    for measure in kind.measures:
        yield from cases_of(kind, measure)
    yield Case("all measures", {}, "stored")
    yield Case("no measure at all", dict.fromkeys(every, ...), "rejected", every)
    yield Case("nothing but null", dict.fromkeys(every, None), "rejected", every)
    yield Case("nothing but an unknown field", {**dict.fromkeys(every, ...), "firmware": 1}, "rejected", every)
    yield Case("64 KiB of extra", {"note": "x" * 65_536}, "extra", ["extra"])
    yield Case("many unknown fields", {f"n{n}": n for n in range(1_000)}, "extra", ["extra"])
    yield Case("deep extra", {"note": json.loads("[" * 150 + "]" * 150)}, "extra", ["note"])
    yield Case("NUL in extra", {"note": "\0"}, "extra", ["note"])
    yield Case("lone surrogate in extra", {"note": "\ud800"}, "extra", ["note"])
    yield Case("NaN in extra", {"note": float("nan")}, "extra", ["note"])
    yield Case("lone surrogate as a name", {"\ud800": 1}, "extra", ["\\ud800"])
    yield Case("unknown field", {"firmware": {"a": [1, None]}}, "stored")
    for value in _NO_IDS:
        yield Case(f"id {value!r}"[:20], {kind.id_field: value}, "rejected", [kind.id_field])
    for value in _NO_TIMES:
        yield Case(f"timestamp {value!r}", {"timestamp": value}, "rejected", ["timestamp"])
    yield Case("1970", {"timestamp": "1970-01-01T00:00:00Z"}, "rejected", ["timestamp", "in the past"])
    yield Case("2100", {"timestamp": "2100-01-01T00:00:00Z"}, "rejected", ["timestamp", "in the future"])


def cases_of(kind: Kind, measure: Measure) -> Iterator[Case]:
    name, others = measure.name, [m.name for m in kind.measures if m is not measure]
    bad: Verdict = "refused" if measure.sort == "gauge" else "rejected"
    extreme: Verdict = "implausible" if measure.sort == "interval" else "stored"
    about = [name] if extreme == "implausible" else []
    alone = dict.fromkeys(others, ...)
    yield Case(f"{name} absent", {name: ...}, "stored")
    yield Case(f"{name} null", {name: None}, "stored")
    yield Case(f"{name} alone", alone, "stored")
    yield Case(f"{name} null alone", {**alone, name: None}, "rejected", [name, "at least one"])
    yield Case(f"{name} at its least", {name: measure.least}, extreme, about)
    yield Case(f"{name} at its most", {name: measure.most}, extreme, about)
    for value in _WRONG_TYPES:
        yield Case(f"{name} {value!r}"[:40], {name: value}, bad, [name, "valid number"])
    for number in _NO_NUMBERS:
        yield Case(f"{name} {number!r}", {name: number}, bad, [name, "Input should be"])
    yield Case(f"{name} above its limit", {name: measure.most + 1}, bad, [name, "less than or equal to"])
    yield Case(f"{name} below its limit", {name: measure.least - 1}, bad, [name, "greater than or equal to"])
    yield Case(f"{name} wrong and alone", {**alone, name: "x"}, "rejected", [name, "valid number"])
    if measure.sort == "register":
        yield Case(f"{name} falling", {name: 999.0}, "stored")
        yield Case(f"{name} without the interval", {m.name: ... for m in kind.of_sort("interval")}, "stored")


class Sent(NamedTuple):
    """One reading to send: a case, or a valid neighbour."""

    at: datetime
    fields: dict[str, Any]
    case: Case

    @property
    def payload(self) -> bytes:
        return json.dumps(self.fields).encode()


GOOD = Case("good neighbour", {}, "stored")


def sent(kind: Kind, name: str) -> list[Sent]:
    """Every case between valid neighbours, a minute apart."""
    rows = [GOOD, *(case for bad in cases(kind) for case in (bad, GOOD))]
    begin = now_minute() - timedelta(minutes=len(rows))
    return [reading(kind, name, begin + timedelta(minutes=n), case) for n, case in enumerate(rows)]


def reading(kind: Kind, name: str, at: datetime, case: Case) -> Sent:
    usually = {measure.name: usual(measure) for measure in kind.measures}
    fields = {kind.id_field: name, **usually, "timestamp": format_timestamp(at), **case.fields}
    return Sent(at, {name: value for name, value in fields.items() if value is not ...}, case)


# -- Results


def assert_told(receipt: Mapping[str, Any], batch: Sequence[Sent]) -> None:
    """Check the counts of the receipt and the entry of every index, including the field."""
    assert receipt["stored"] + receipt["duplicates"] + len(receipt["rejected"]) == len(batch)
    rejected = {entry["index"]: entry["reason"] for entry in receipt["rejected"]}
    warned = {entry["index"]: entry for entry in reversed(receipt.get("warnings", []))}
    assert len(rejected) == len(receipt["rejected"])
    for index, item in enumerate(batch):
        found = [verdict_of(rejected, warned, index), rejected.get(index) or str(warned.get(index))]
        assert found[0] == item.case.verdict, (item.case, found)
        assert all(json.dumps(word)[1:-1] in json.dumps(found[1]) for word in item.case.about), (item.case, found)


def verdict_of(rejected: Mapping[int, str], warned: Mapping[int, Any], index: int) -> str:
    if index in rejected:
        assert index not in warned
        return "rejected"
    return str(warned[index]["reason"]).split(":")[0] if index in warned else "stored"


async def assert_kept(db: Db, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    """Check that the history contains exactly the readings that were not rejected, and that each reject is stored."""
    query = f"SELECT * FROM {kind.history_table} WHERE {kind.id_column} = $1 ORDER BY ts"
    rows = await db.fetch(query, name)
    kept = [item for item in batch if item.case.verdict != "rejected"]
    assert [row["ts"] for row in rows] == [item.at for item in kept]
    for row, item in zip(rows, kept, strict=True):
        refused = item.case.fields if item.case.verdict == "refused" else {}
        for measure in kind.measures:
            value = None if measure.name in refused else item.fields.get(measure.name)
            assert row[measure.column] == value, item.case
        if refused:
            assert json.loads(row["extra"])["refused"].keys() == refused.keys(), item.case
        if item.case.verdict == "extra":
            assert row["extra"] is None
    found = {canonical(row[0]): row[1] for row in await db.fetch("SELECT payload, detail FROM rejected_message")}
    for item in batch:
        if item.case.verdict == "rejected":
            assert all(word in found[canonical(item.payload)] for word in item.case.about), item.case


def canonical(payload: bytes) -> str:
    try:
        return json.dumps(json.loads(payload), sort_keys=True)
    except ValueError:
        return repr(payload)


# -- The stack


class Stack(NamedTuple):
    broker: Mosquitto
    database_url: str
    db: Db
    bridge: Health
    api: httpx.AsyncClient

    async def post(self, body: bytes, headers: Mapping[str, str] = JSON) -> dict[str, Any]:
        """The receipt, for any status of the response."""
        answer = await self.api.post("/v1/ingest", content=body, headers=headers)
        assert answer.status_code in (201, 207, 422), answer.text
        receipt: dict[str, Any] = answer.json()
        return receipt

    async def publish(self, kind: Kind, name: str, payloads: Sequence[bytes]) -> list[dict[str, Any]]:
        """The receipt of each message."""
        receipts: dict[int, dict[str, Any]] = {}
        answer_to = f"fleet/{kind.name}/{name}/receipt"
        async with asyncio.timeout(60), device(self.broker.url) as client:
            await client.subscribe(answer_to, qos=1)
            for number, payload in enumerate(payloads):
                asks = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                asks.ResponseTopic, asks.CorrelationData = answer_to, str(number).encode()
                await client.publish(kind.topic(name), payload, 1, properties=asks)
            async for message in client.messages:
                assert message.properties is not None
                receipts[int(message.properties.CorrelationData)] = json.loads(message.payload)  # type: ignore[attr-defined]
                if len(receipts) == len(payloads):
                    break
        return [receipts[number] for number in range(len(payloads))]

    async def replay(self, *ids: UUID, **settings: object) -> tuple[int, str]:
        """`python -m bridge rejected replay`: its exit code and its output for each message, without the ids."""
        command = [sys.executable, "-m", "bridge", "rejected", "replay", *map(str, ids)]
        env = environment(database_url=self.database_url, **settings)
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=env, check=False)
        assert ran.stderr == ""
        return ran.returncode, "\n".join(line.partition(" ")[2] for line in ran.stdout.splitlines())

    async def rejected(self, where: str, *parameters: object) -> asyncpg.Record | None:
        return await self.db.fetchrow(f"SELECT * FROM rejected_message WHERE {where}", *parameters)


@pytest.fixture(scope="module")
def module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path_factory.mktemp("bad_input") / "mosquitto")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def stack(
    module_broker: Mosquitto, postgres: Postgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One bridge and one API for all tests of this module; each has devices of its own."""
    url = new_database(postgres, template)
    db = await asyncpg.connect(url)
    _, token = await keys.create(db, "bad input", keys.Grant(keys.DEFAULT_SCOPES))
    api = await asyncio.to_thread(launch, url, tmp_path_factory.mktemp("bad_input") / "api.log", {})
    async with serving(module_broker.bridge_url, url) as bridge, api.client(token) as client:
        yield Stack(module_broker, url, db, bridge, client)
    await asyncio.to_thread(api.process.stop)
    await db.close()


# -- The matrix


async def each_by_mqtt(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    for item, receipt in zip(batch, await stack.publish(kind, name, [i.payload for i in batch]), strict=True):
        assert_told(receipt, [item])


def halves(batch: Sequence[Sent]) -> Sequence[Sequence[Sent]]:
    """Each fits into a message."""
    return batch[: len(batch) // 2], batch[len(batch) // 2 :]


async def array_by_mqtt(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    for half in halves(batch):
        (receipt,) = await stack.publish(kind, name, [b"[" + b",".join(item.payload for item in half) + b"]"])
        assert_told(receipt, half)


async def each_by_http(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    for item in batch:
        assert_told(await stack.post(item.payload), [item])


async def array_by_http(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    assert_told(await stack.post(b"[" + b",".join(item.payload for item in batch) + b"]"), batch)


async def array_that_is_not_json_by_http(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    body = b"[" + b",".join([*(item.payload for item in batch), b'{"soc":nan}']) + b"]"
    receipt = await stack.post(body)
    last = receipt["rejected"].pop()
    assert (last["index"], last["reason"].split(":")[0]) == (len(batch), "not_json")
    assert_told(receipt, batch)


async def lines_by_http(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    assert_told(await stack.post(b"\n".join(item.payload for item in batch), NDJSON), batch)


async def array_by_replay(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    """A backlog too long for a message is rejected as a whole; its replay splits it."""
    for half in halves(batch):
        await _replay_one(stack, kind, name, half)


async def _replay_one(stack: Stack, kind: Kind, name: str, batch: Sequence[Sent]) -> None:
    filler = [b"null"] * (MAX_READINGS_PER_MESSAGE + 1 - len(batch))
    payload = b"[" + b",".join([*(item.payload for item in batch), *filler]) + b"]"
    (receipt,) = await stack.publish(kind, name, [payload])
    assert (receipt["stored"], len(receipt["rejected"])) == (0, 1)
    pending = "reason = 'too_many_readings' AND device = $1 AND payload = $2"
    row = await stack.rejected(pending, name, payload)
    assert row is not None
    assert row["payload"] == payload
    code, said = await stack.replay(row["id"])
    assert code == 1
    reasons = dict(entry.split(": ", 1) for entry in said.split("; ") if entry.split(": ")[0].isdigit())
    first = [n for n, item in enumerate(batch) if item.case.verdict == "rejected"][:20]
    assert list(map(int, reasons)) == first
    assert all(batch[n].case.about[0] in said for n in first)


WAYS: dict[str, Callable[[Stack, Kind, str, Sequence[Sent]], Awaitable[None]]] = {
    "each_mqtt": each_by_mqtt,
    "array_mqtt": array_by_mqtt,
    "each_http": each_by_http,
    "array_http": array_by_http,
    "spoiled_http": array_that_is_not_json_by_http,
    "lines_http": lines_by_http,
    "replay": array_by_replay,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_bad_reading_is_judged_by_field_and_index_and_good_neighbours_are_stored(
    stack: Stack, kind: Kind, way: str
) -> None:
    name = f"{kind.name}_{way}"
    warned = await stack.bridge.metric("fleet_warnings_total", code="implausible")
    batch = sent(kind, name)
    assert len(batch) <= MAX_READINGS_PER_MESSAGE
    await WAYS[way](stack, kind, name, batch)
    await assert_kept(stack.db, kind, name, batch)
    if way.endswith("mqtt"):
        implausible = sum(item.case.verdict == "implausible" for item in batch)
        assert await stack.bridge.metric("fleet_warnings_total", code="implausible") == warned + implausible


# -- Arrays that are not valid JSON as a whole


_ID_OF = "SELECT id FROM rejected_message WHERE payload = $1"
TOKENS = [b"nan", b"-nan", b"inf", b".5", b"50.", b"+50", b"050", b"50,5", b"NULL", b"'50'", b"0x10"]


def spoiled(name: str) -> tuple[list[bytes], list[int]]:
    """Valid readings, each followed by one with an invalid token, and the indexes of the valid ones."""
    good = list(map(encode, minutes(name, len(TOKENS) + 1)))
    elements = [good[0]]
    for n, token in enumerate(TOKENS, start=1):
        elements += [b'{"vehicleId":"%b","soc":%b}' % (name.encode(), token), good[n]]
    return elements, list(range(0, len(elements), 2))


@pytest.mark.parametrize("way", ["mqtt", "http", "ndjson"])
async def test_bad_token_costs_its_own_element_alone(stack: Stack, way: str) -> None:
    name = f"EV_token_{way}"
    elements, good = spoiled(name)
    if way == "mqtt":
        (receipt,) = await stack.publish(KINDS[0], name, [b"[" + b",".join(elements) + b"]"])
    else:
        lines = way == "ndjson"
        body = b"\n".join(elements) if lines else b"[" + b",".join(elements) + b"]"
        receipt = await stack.post(body, NDJSON if lines else JSON)
    assert receipt["stored"] == len(good)
    assert [entry["index"] for entry in receipt["rejected"]] == [n + 1 for n in good[:-1]]
    assert all(entry["reason"].startswith("not_json: ") for entry in receipt["rejected"])
    history = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = $1"
    assert await stack.db.fetchval(history, name) == len(good)
    kept_as = "ndjson" if way == "ndjson" else "json"
    for element in elements[1::2]:
        row = await stack.rejected("payload = $1", element)
        assert row is not None
        assert (row["reason"], row["format"]) == ("not_json", kept_as)
    code, said = await stack.replay(await stack.db.fetchval(_ID_OF, elements[1]))
    assert code == 1
    assert said.startswith("0: not_json: ")


@pytest.mark.parametrize("way", ["mqtt", "http"])
async def test_array_cut_off_stores_what_came_whole_and_warns_where_only_the_bracket_is_missing(
    stack: Stack, way: str
) -> None:
    name = f"EV_cut_{way}"
    whole = encode_many(minutes(name, 3))

    async def receipt_of(payload: bytes) -> dict[str, Any]:
        return (await stack.publish(KINDS[0], name, [payload]))[0] if way == "mqtt" else await stack.post(payload)

    receipt = await receipt_of(whole[:-2])
    assert (receipt["stored"], [entry["index"] for entry in receipt["rejected"]]) == (2, [2])
    receipt = await receipt_of(whole[:-1])
    assert (receipt["stored"], receipt["duplicates"], receipt["rejected"]) == (1, 2, [])
    assert [(w["index"], w["reason"].split(":")[0]) for w in receipt["warnings"]] == [(2, "truncated")]


# -- Replay


async def test_backlog_of_1999_readings_in_one_message_is_stored_by_its_replay(stack: Stack) -> None:
    backlog = encode_many(minutes("EV_backlog", 1_999))
    (receipt,) = await stack.publish(KINDS[0], "EV_backlog", [backlog])
    assert (receipt["stored"], receipt["rejected"][0]["index"]) == (0, 0)
    assert "more than 1000 readings" in receipt["rejected"][0]["reason"]
    row = await stack.rejected("device = 'EV_backlog'")
    assert row is not None
    assert await stack.replay(row["id"]) == (0, "stored")
    history = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_backlog'"
    assert await stack.db.fetchval(history) == 1_999
    assert await stack.replay(row["id"]) == (0, ""), "it counts as replayed"


async def test_backlog_with_nan_among_its_readings_is_stored_by_its_replay_but_for_those(stack: Stack) -> None:
    elements = [encode(reading) for reading in minutes("EV_spoiled", 1_999)]
    for n in (0, 999, 1_000, 1_998):
        elements[n] = elements[n].replace(b"4.25", b"nan")
    await publish_with_paho(stack.broker.url, "5", [(KINDS[0].topic("EV_spoiled"), b"[" + b",".join(elements) + b"]")])
    row = await until(lambda: stack.rejected("reason = 'too_many_readings' AND device = 'EV_spoiled'"))
    code, said = await stack.replay(row["id"])
    assert code == 1
    assert [entry.split(":")[0] for entry in said.split("; ")] == ["0", "999", "1000", "1998"]
    history = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_spoiled'"
    assert await stack.db.fetchval(history) == 1_995


@pytest.mark.parametrize("headers", [JSON, NDJSON], ids=["json", "ndjson"])
async def test_rejected_element_is_replayed_in_the_format_it_came_in(stack: Stack, headers: dict[str, str]) -> None:
    """A reading that is too old is stored with a wider window, from the stored payload and format."""
    kept_as = "ndjson" if headers is NDJSON else "json"
    old = encode(vehicle(f"EV_{kept_as}", now_minute() - timedelta(days=200)))
    body = b"\n".join([old, b"{"]) if headers is NDJSON else b"[" + old + b"," + b"nan]"
    receipt = await stack.post(body, headers)
    assert [entry["index"] for entry in receipt["rejected"]] == [0, 1]
    row = await stack.rejected("device = $1", f"EV_{kept_as}")
    assert row is not None
    assert (row["reason"], row["format"], json.loads(row["payload"])) == (
        "timestamp_out_of_range",
        kept_as,
        json.loads(old),
    )
    code, said = await stack.replay(row["id"])
    assert (code, said.split(":")[:2]) == (1, ["0", " timestamp_out_of_range"])
    assert await stack.replay(row["id"], past_limit_days=400) == (0, "stored")
    history = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = $1"
    assert await stack.db.fetchval(history, f"EV_{kept_as}") == 1


async def test_reject_of_an_unknown_format_does_not_stop_the_replay_of_others(stack: Stack) -> None:
    """A newer version with more formats stored it; this version reports it, and leaves it for that one."""
    at = now_minute() - timedelta(days=200)
    ids = []
    for name in ("EV_before", "EV_unknown", "EV_after"):
        await stack.post(encode(vehicle(name, at)))
        ids.append(await stack.db.fetchval("SELECT id FROM rejected_message WHERE device = $1", name))
    await stack.db.execute("UPDATE rejected_message SET format = 'cbor' WHERE id = $1", ids[1])
    code, said = await stack.replay(*ids, past_limit_days=400)
    assert code == 1
    assert said.splitlines() == ["stored", "0: not_a_reading: this version has no format cbor", "stored"]
    row = await stack.rejected("id = $1 AND replayed_at IS NULL", ids[1])
    assert row is not None
    assert (row["device"], row["format"]) == ("EV_unknown", "cbor")


async def test_reject_that_conflicts_when_it_is_replayed_keeps_its_source(stack: Stack) -> None:
    at = now_minute() - timedelta(days=200)
    for soc in (1.0, 2.0):
        await stack.post(encode(vehicle("EV_twice", at, soc=soc)))
    pending = await stack.db.fetch("SELECT id FROM rejected_message WHERE device = 'EV_twice' ORDER BY received_at")
    assert await stack.replay(pending[0]["id"], past_limit_days=400) == (0, "stored")
    code, said = await stack.replay(pending[1]["id"], past_limit_days=400)
    assert (code, said.split(":")[:2]) == (1, ["0", " conflict"])
    conflict = await stack.rejected("device = 'EV_twice' AND reason = 'conflict'")
    assert conflict is not None
    assert (conflict["source"], conflict["topic"]) == ("http", None)


async def test_repetition_is_told_apart_by_its_canonical_json(stack: Stack) -> None:
    at = now_minute()
    receipt = await stack.post(encode_many([vehicle("EV_true", at, flag=value) for value in (True, 1, True, 1.0)]))
    assert (receipt["stored"], receipt["duplicates"]) == (1, 1)
    assert [entry["index"] for entry in receipt["rejected"]] == [1, 3]
    again = await stack.post(encode(vehicle("EV_true", at, flag=1)))
    assert again["rejected"][0]["reason"].startswith("conflict")
    same = await stack.post(encode(vehicle("EV_true", at, flag=True)))
    assert (same["stored"], same["duplicates"]) == (0, 1)


async def test_declared_power_and_interval_decide_what_is_implausible(stack: Stack) -> None:
    device_sql = "INSERT INTO device (kind, id, interval_s, rated_kw) VALUES ('vehicle', $1, $2, $3)"
    await stack.db.execute(device_sql, "EV_small", None, 11.0)
    await stack.db.execute(device_sql, "EV_seldom", 900.0, None)
    small, usual_, seldom = (vehicle(name).changed(kwh_delivered_dc=1.0) for name in ("EV_small", "EV_x", "EV_seldom"))

    async def implausible() -> list[int]:
        readings = [
            small,
            usual_,
            seldom.changed(kwh_delivered_dc=100.0),
            usual_.changed(seldom.timestamp - timedelta(1), kwh_delivered_dc=100.0),
        ]
        receipt = await stack.post(encode_many(readings))
        assert receipt["rejected"] == []
        return [w["index"] for w in receipt.get("warnings", []) if w["reason"].startswith("implausible: ")]

    await until(lambda: _is(implausible, [0, 3]))
    receipt = (await stack.publish(KINDS[0], "EV_small", [encode(small)]))[0]
    assert [(w["index"], w["field"]) for w in receipt["warnings"]] == [(0, "kwhDeliveredDc")]


async def _is(ask: Callable[[], Awaitable[list[int]]], answer: list[int]) -> bool:
    return await ask() == answer
