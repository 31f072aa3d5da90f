"""Mutated payloads with the real stack: nothing crashes, no response is a 5xx, no batch blocks.

The counts of every receipt are correct (stored + duplicates + rejected = elements), each reading that a receipt counts
as newly stored is an additional row of the history, and each acknowledged reading is found there.

FLEET_FUZZ is the number of payloads over MQTT and over HTTP, a few thousand by default. To run a million each:

    FLEET_FUZZ=1000000 FLEET_FUZZ_SEED=7 python -m pytest tests/acceptance/test_fuzz.py -n 0 \
        --junitxml fuzz.xml -o junit_family=xunit1

The results are recorded as properties of the tests.
"""

import asyncio
import base64
import json
import queue
import random
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.contract import KINDS, Kind, Measure
from bridge.errors import Rejected
from bridge.store.postgres import PostgresStore
from local.platform import Platform
from tests.fuzzing import COUNT, SEED
from tests.readings import now_minute

Record = Callable[[str, object], None]
Receipt = Mapping[str, Any]

_ROUND = 2000
_CLIENTS = 8

_TOKENS = [
    *(b"null true false {} [] [[]] 1e999 -1e999 1e-999 NaN Infinity -0 1e308 99999999999999999999 1.0e".split()),
    *(b'"" "\\u0000" "\\ud800" "\xff" \0 // { [ } ] , : " \\ \xef\xbb\xbf'.split(b" ")),
    *(b'"2026-02-30T00:00:00Z" "0001-01-01T00:00:00+23:59" "9999-12-31T23:59:60Z" "vehicleId" "meterId"'.split()),
    b"[" * 3000,
    b'{"a":' * 500,
    b"9" * 5000,
    *(b',"x":' + b"[" * depth + b"]" * depth for depth in (90, 150, 300, 700)),
]

_BAD_NUMBERS = b"nan -nan inf -Infinity NaN .5 50. +50 050 50,5 NULL 0x10 1e999 --1".split()
_WRONG = ["1", "", True, False, None, [], [1], {}, {"a": [None]}, 1e300, -1e300, 10**30, "x" * 3000]
_lines = re.compile(rb"[^\s\0][^\r\n]*").findall


class Fuzzed(NamedTuple):
    """A payload, and the kind that most of its readings are of."""

    kind: Kind
    payload: bytes


class Mutations:
    """An endless sequence of payloads, the same for the same seed; some are repeated."""

    def __init__(self, rng: random.Random, *, ndjson: bool = False) -> None:
        self._rng = rng
        self._ndjson = ndjson
        self._latest = now_minute()
        self._earlier: list[Fuzzed] = []

    def next(self) -> Fuzzed:
        """A payload of readings, most of them valid, after a few random edits."""
        rng = self._rng
        if self._earlier and rng.random() < 0.05:
            return rng.choice(self._earlier)
        kind = rng.choice(KINDS)
        payload = self._framed([self._element(kind) for _ in range(rng.choice([0, 1, 1, 2, 3, 6]))], kind)
        for _ in range(rng.choice([0, 0, 0, 1, 2, 5])):
            payload = _edited(payload, rng)
        fuzzed = Fuzzed(kind, payload)
        if len(self._earlier) < 100:
            self._earlier.append(fuzzed)
        elif rng.random() < 0.1:
            self._earlier[rng.randrange(100)] = fuzzed
        return fuzzed

    def _framed(self, elements: list[bytes], kind: Kind) -> bytes:
        """The elements as an object, an array or lines, occasionally damaged in the way of real devices."""
        rng = self._rng
        if self._ndjson:
            return rng.choice([b"\n", b"\r\n", b"\n\n"]).join(elements)
        if rng.random() < 0.4:
            return elements[0] if elements else self._element(kind)
        array = b"[" + rng.choice([b",", b" , ", b",\n"]).join(elements) + b"]"
        shape = rng.randrange(12)
        if shape == 0:
            return array[: rng.randrange(len(array)) or 1]
        marks = {1: (b"\xef\xbb\xbf", b""), 2: (b"", b"\0"), 3: (b" \n", b"\r\n"), 4: (b"", array), 5: (b"", b",")}
        before, after = marks.get(shape, (b"", b""))
        return before + (array[:-1] + b",]" if shape == 6 else array) + after

    def _element(self, kind: Kind) -> bytes:
        """One object: any of the measures, nulls, wrong types, bad tokens, extras up to 64 KiB."""
        rng = self._rng
        at = self._latest - timedelta(milliseconds=rng.randrange(2 * 86_400_000))
        fields: dict[str, Any] = {kind.id_field: device_of(kind)}
        fields |= {m.name: self._value(m) for m in kind.measures if rng.random() < 0.6}
        fields["timestamp"] = at.isoformat()
        if rng.random() < 0.1:
            fields[rng.choice([kind.id_field, "timestamp", "meterId", "\0", "\ud800"])] = rng.choice(_WRONG)
        if rng.random() < 0.2:
            note: list[object] = [
                "2.1",
                "\0",
                "\ud800",
                float("nan"),
                "x" * 65_536,
                dict.fromkeys(map(str, range(200))),
            ]
            fields[rng.choice(["firmware", "refused", "extra"])] = rng.choice(note)
        text = json.dumps(fields).encode()
        return text.replace(b"0.125", rng.choice(_BAD_NUMBERS)) if rng.random() < 0.1 else text

    def _value(self, measure: Measure) -> object:
        rng = self._rng
        if rng.random() < 0.05:
            return rng.choice([*_WRONG, measure.least - 1, measure.most + 1, float("nan")])
        return rng.choice([None, 0.125, 0.125, measure.least, measure.most, rng.uniform(measure.least, measure.most)])


def device_of(kind: Kind) -> str:
    return kind.example_id


def _edited(payload: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(payload) + 1)
    end = min(len(payload), start + rng.choice([0, 1, 1, 2, 8, 30]))
    new = rng.choice([b"", rng.randbytes(1), rng.choice(_TOKENS), payload[start:end] * 2, bytes([rng.randrange(128)])])
    return payload[:start] + new + payload[end:]


class Ledger:
    """Checks the counts of receipts, and that the acknowledged readings are in the history."""

    def __init__(self, platform: Platform) -> None:
        self._database_url = platform.database_url
        self._rows_before = self.rows()
        self.stored = 0
        self._acknowledged: set[tuple[str, str, datetime]] = set()
        self.found = 0
        """Number of acknowledged readings that were looked up."""

    def enter(self, payload: bytes, receipt: Receipt, *, ndjson: bool = False) -> None:
        """Check one receipt against what was sent."""
        rejected = [entry["index"] for entry in receipt["rejected"]]
        total = receipt["stored"] + receipt["duplicates"] + len(rejected)
        elements = elements_of(payload, ndjson=ndjson)
        assert elements is None or max(len(elements), 1) == total, (payload, receipt)
        assert rejected == sorted(set(rejected)), (payload, receipt)
        assert all(0 <= index < total for index in rejected), (payload, receipt)
        warned = {entry["index"] for entry in receipt.get("warnings", [])}
        assert warned <= set(range(total)) - set(rejected), (payload, receipt)
        assert all(entry["reason"] for entry in [*receipt["rejected"], *receipt.get("warnings", [])])
        self.stored += receipt["stored"]
        for index in set(range(len(elements or []))) - set(rejected):
            self._acknowledge((elements or [])[index])

    def _acknowledge(self, element: Any) -> None:
        if element is None:  # accepted, although this test's parser refuses it; covered by the count of rows
            return
        kind = next(kind for kind in KINDS if kind.id_field in element)
        at = datetime.fromisoformat(element["timestamp"].upper())
        self._acknowledged.add((kind.name, element[kind.id_field], at))

    def rows(self) -> int:
        counts = (f"(SELECT count(*) FROM {kind.history_table})" for kind in KINDS)
        return int(self._ask(f"SELECT {' + '.join(counts)}"))

    def assert_in_the_history(self) -> None:
        """Check that each reading acknowledged since the last call is stored, and the number of new rows."""
        for kind in KINDS:
            own = [(device, at) for name, device, at in self._acknowledged if name == kind.name]
            missing = (
                f"SELECT count(*) FROM unnest($1::text[], $2::timestamptz[]) AS g(device, ts) WHERE NOT EXISTS "
                f"(SELECT FROM {kind.history_table} h WHERE h.{kind.id_column} = g.device AND h.ts = g.ts)"
            )
            assert self._ask(missing, [device for device, _ in own], [at for _, at in own]) == 0
        self.found += len(self._acknowledged)
        self._acknowledged.clear()
        assert self.rows() == self._rows_before + self.stored

    def _ask(self, query: str, *parameters: object) -> int:
        async def ask() -> int:
            connection = await asyncpg.connect(self._database_url)
            try:
                return int(await connection.fetchval(query, *parameters))
            finally:
                await connection.close()

        return asyncio.run(ask())


def elements_of(payload: bytes, *, ndjson: bool) -> list[Any] | None:
    """The elements of the payload according to Python's own parser: None for those that it refuses."""
    if ndjson:
        return [parsed(line) for line in _lines(payload)]
    document = parsed(payload)
    if document is None:
        return None
    return document if isinstance(document, list) else [document]


def parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None


@contextmanager
def gateway(url: str) -> Iterator[tuple[paho.Client, "queue.SimpleQueue[tuple[int, bytes]]"]]:
    """A connected client and the receipts that it gets, with the numbers of their messages."""
    parts, receipts = urlsplit(url), queue.SimpleQueue[tuple[int, bytes]]()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(parts.username, parts.password)
    client.on_connect = lambda client, *_: client.subscribe([(f"fleet/{kind.name}/+/receipt", 1) for kind in KINDS])
    client.on_message = lambda _client, _data, message: receipts.put(
        (int(message.properties.CorrelationData), bytes(message.payload))  # type: ignore[union-attr]
    )
    subscribed = queue.SimpleQueue[bool]()
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.connect(parts.hostname or "", parts.port or 1883)
    client.loop_start()
    try:
        subscribed.get(timeout=20)
        yield client, receipts
    finally:
        client.disconnect()
        client.loop_stop()


def metric(platform: Platform, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{platform.ports.bridge_http}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def publish(client: paho.Client, number: int, fuzzed: Fuzzed, rng: random.Random) -> None:
    """Publish to the topic of the readings' device, or now and then to that of a device of another kind."""
    kind = fuzzed.kind if rng.random() < 0.95 else rng.choice(KINDS)
    asks = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    asks.ResponseTopic = f"fleet/{kind.name}/{device_of(kind)}/receipt"
    asks.CorrelationData = str(number).encode()
    client.publish(kind.topic(device_of(kind)), fuzzed.payload, 1, properties=asks)


def test_mutated_messages_are_kept_or_rejected_and_nothing_stalls(platform: Platform, record_property: Record) -> None:
    rng, pid, ledger = random.Random(SEED), platform.bridge.process.pid, Ledger(platform)
    mutations = Mutations(rng)
    with gateway(platform.broker.url) as (client, receipts):
        for sent in range(0, COUNT, _ROUND):
            messages = [mutations.next() for _ in range(min(_ROUND, COUNT - sent))]
            for number, message in enumerate(messages):
                publish(client, number, message, rng)
            # Each message has its receipt: nothing is lost, and the queue is empty.
            answered = dict(receipts.get(timeout=60) for _ in messages)
            for number, message in enumerate(messages):
                ledger.enter(message.payload, json.loads(answered[number]))
            ledger.assert_in_the_history()
    assert platform.bridge.process.running
    assert platform.bridge.process.pid == pid
    assert metric(platform, "fleet_mqtt_messages_total") >= COUNT
    assert metric(platform, "fleet_mqtt_connects_total") == 1
    assert metric(platform, "fleet_store_unavailable_total") == 0
    assert metric(platform, 'fleet_readings_total{outcome="stored"}') == ledger.stored > COUNT / 4
    assert metric(platform, 'fleet_readings_total{outcome="rejected"}') > COUNT / 4
    assert metric(platform, "fleet_reject_alarms_total") >= 1
    for outcome in ("stored", "duplicate", "rejected"):
        record_property(outcome, metric(platform, f'fleet_readings_total{{outcome="{outcome}"}}'))
    record_property("found in the history", ledger.found)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_mutated_bodies_are_answered_and_never_with_an_error_of_ours(
    content_type: str, platform: Platform, client: httpx.Client, record_property: Record
) -> None:
    ndjson = content_type.endswith("ndjson")
    pid, answered, ledger = platform.api.process.pid, Counter[int](), Ledger(platform)
    mutations = Mutations(random.Random(SEED + 1 + ndjson), ndjson=ndjson)

    def post(body: bytes) -> httpx.Response:
        answer = client.post("/v1/ingest", content=body, headers={"Content-Type": content_type})
        assert answer.status_code in (201, 207, 400, 413, 422), (answer.status_code, answer.text, body)
        return answer

    with ThreadPoolExecutor(_CLIENTS) as clients:
        for sent in range(0, COUNT // 2, _ROUND):
            bodies = [mutations.next().payload for _ in range(min(_ROUND, COUNT // 2 - sent))]
            for body, answer in zip(bodies, clients.map(post, bodies), strict=True):
                answered[answer.status_code] += 1
                if answer.status_code in (400, 413):
                    assert not ndjson or answer.status_code == 413
                else:
                    ledger.enter(body, answer.json(), ndjson=ndjson)
            ledger.assert_in_the_history()
    assert answered.total() == COUNT // 2
    assert ledger.stored > COUNT / 8
    assert platform.api.process.running
    assert platform.api.process.pid == pid
    for status, count in sorted(answered.items()):
        record_property(str(status), count)
    record_property("found in the history", ledger.found)


def test_mutated_rejects_are_shown_and_replayed_as_foreseen(
    platform: Platform, client: httpx.Client, record_property: Record
) -> None:
    """Rejects of any bytes: each is shown unchanged, and its replay does what the dry run said."""
    mutations, ledger = Mutations(random.Random(SEED + 3)), Ledger(platform)
    made = [mutations.next() for _ in range(max(20, COUNT // 20))]
    rejects = [Rejected("invalid_field", "fuzz", each.payload, each.kind.topic(device_of(each.kind))) for each in made]
    payloads = asyncio.run(_reject(platform.database_url, rejects))
    stored, outcomes = 0, Counter[str]()
    for id_, payload in payloads.items():
        shown = client.get(f"/v1/rejects/{id_}").raise_for_status().json()
        content = shown["payload"]["content"]
        own = base64.b64decode(content) if shown["payload"]["encoding"] == "base64" else content.encode()
        assert (own, shown["bytes"]) == (payload[:65_536], len(payload))
        foreseen, replayed, again = (
            client.post("/v1/rejects/replay", json={"ids": [id_], "dryRun": dry_run}).raise_for_status().json()["items"]
            for dry_run in (True, False, False)
        )
        assert replayed == foreseen, payload
        assert again == replayed or again[0]["outcome"] == "replayed", payload
        stored += replayed[0]["stored"]
        outcomes[replayed[0]["outcome"]] += 1
    ledger.stored = stored
    ledger.assert_in_the_history()
    assert {"stored", "partly", "rejected"} <= outcomes.keys()
    for name, count in outcomes.items():
        record_property(name, count)


async def _reject(database_url: str, rejects: Sequence[Rejected]) -> dict[str, bytes]:
    """Store the rejects; their payloads by id."""
    store = PostgresStore(database_url)
    try:
        await store.write(rejects)
    finally:
        await store.close()
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT id, payload FROM rejected_message WHERE detail = 'fuzz'")
        return {str(row["id"]): row["payload"] for row in rows}
    finally:
        await connection.close()
