"""Mutated payloads through the real stack: nothing crashes, nothing answers with 5xx, no batch gets stuck.

FLEET_FUZZ says how many go through each door (a million in the long form); what became of them is recorded as
properties of the tests (`--junitxml FILE -o junit_family=xunit1`).
"""

import json
import queue
import random
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.wire import encode
from local.platform import Platform
from tests.fuzzing import COUNT, SEED
from tests.readings import SEED_METER, SEED_VEHICLE, now_minute, vehicle

Record = Callable[[str, object], None]

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


def mutated(rng: random.Random) -> bytes:
    """A valid payload after a few random edits."""
    now = now_minute().isoformat().encode()
    payload = rng.choice([SEED_VEHICLE, SEED_METER]).replace(b"2026-02-10T10:15:00Z", now)
    if rng.random() < 0.3:
        payload = b"[" + b",".join([payload] * rng.randrange(0, 5)) + b"]"
    for _ in range(rng.randrange(1, 6)):
        payload = _edited(payload, rng)
    return payload


def _edited(payload: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(payload) + 1)
    end = min(len(payload), start + rng.choice([0, 1, 1, 2, 8, 30]))
    new = rng.choice([b"", rng.randbytes(1), rng.choice(_TOKENS), payload[start:end] * 2, bytes([rng.randrange(128)])])
    return payload[:start] + new + payload[end:]


@contextmanager
def gateway(url: str) -> Iterator[tuple[paho.Client, "queue.SimpleQueue[bytes]"]]:
    """A connected client and the receipts that it gets."""
    parts, receipts = urlsplit(url), queue.SimpleQueue[bytes]()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(parts.username, parts.password)
    client.on_connect = lambda client, *_: client.subscribe("fleet/vehicle/+/receipt", 1)
    client.on_message = lambda _client, _data, message: receipts.put(bytes(message.payload))
    client.connect(parts.hostname or "", parts.port or 1883)
    client.loop_start()
    try:
        yield client, receipts
    finally:
        client.disconnect()
        client.loop_stop()


def metric(platform: Platform, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{platform.ports.bridge_http}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def publish_round(client: paho.Client, receipts: "queue.SimpleQueue[bytes]", rng: random.Random, count: int) -> None:
    """Publish, then wait for the receipt of a good reading behind them all: the queue is through."""
    for _ in range(count):
        client.publish(
            rng.choice(["fleet/vehicle/EV_002/telemetry", "fleet/meter/METER_001/telemetry"]), mutated(rng), 1
        )
    asks = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    asks.ResponseTopic = "fleet/vehicle/LAST/receipt"
    client.publish("fleet/vehicle/LAST/telemetry", encode(vehicle("LAST")), 1, properties=asks)
    receipt = json.loads(receipts.get(timeout=60))
    assert receipt["stored"] + receipt["duplicates"] == 1


def test_mutated_messages_are_kept_or_rejected_and_nothing_stalls(platform: Platform, record_property: Record) -> None:
    rng, pid = random.Random(SEED), platform.bridge.process.pid
    with gateway(platform.broker.url) as (client, receipts):
        for sent in range(0, COUNT, _ROUND):
            publish_round(client, receipts, rng, min(_ROUND, COUNT - sent))
    assert platform.bridge.process.running
    assert platform.bridge.process.pid == pid
    assert metric(platform, "fleet_mqtt_messages_total") >= COUNT
    assert metric(platform, "fleet_mqtt_connects_total") == 1
    assert metric(platform, "fleet_store_unavailable_total") == 0
    assert metric(platform, 'fleet_readings_total{outcome="rejected"}') > COUNT / 2
    assert metric(platform, "fleet_reject_alarms_total") >= 1
    for outcome in ("stored", "duplicate", "rejected"):
        record_property(outcome, metric(platform, f'fleet_readings_total{{outcome="{outcome}"}}'))


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_mutated_bodies_are_answered_and_never_with_an_error_of_ours(
    content_type: str, platform: Platform, client: httpx.Client, record_property: Record
) -> None:
    rng, pid, answered = random.Random(SEED), platform.api.process.pid, Counter[int]()

    def post(body: bytes) -> int:
        answer = client.post("/v1/ingest", content=body, headers={"Content-Type": content_type})
        assert answer.status_code in (201, 207, 400, 413, 422), (answer.status_code, answer.text, body)
        return answer.status_code

    with ThreadPoolExecutor(_CLIENTS) as clients:
        for sent in range(0, COUNT // 2, _ROUND):
            bodies = [mutated(rng) for _ in range(min(_ROUND, COUNT // 2 - sent))]
            answered.update(clients.map(post, bodies))
    assert answered.total() == COUNT // 2
    assert platform.api.process.running
    assert platform.api.process.pid == pid
    for status, count in sorted(answered.items()):
        record_property(str(status), count)
