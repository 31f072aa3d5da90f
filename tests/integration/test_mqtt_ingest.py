"""Publishing over a real broker with third-party clients, up to the stored rows."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

import aiomqtt
import asyncpg
import mqtt5
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.formats.contract_json import encode, encode_many
from bridge.reading import format_timestamp
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import Health, serving
from tests.databases import new_database
from tests.devices import Version, bare_device, device, publish_with_paho
from tests.readings import SEED_METER, SEED_TIME, SEED_VEHICLE, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Stack(NamedTuple):
    broker: Mosquitto
    url: str
    db: Db
    health: Health

    async def stored(self, device_id: str, count: int) -> None:
        """Wait until the history has this many readings of a device."""
        query = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = $1"
        await until(lambda: self._is(query, device_id, count))

    async def _is(self, query: str, device_id: str, count: int) -> bool:
        return bool(await self.db.fetchval(query, device_id) == count)

    async def rejects(self, device_id: str) -> list[asyncpg.Record]:
        query = "SELECT * FROM rejected_message WHERE topic LIKE '%/' || $1 || '/%' ORDER BY received_at, id"
        return await self.db.fetch(query, device_id)


@pytest.fixture(scope="module")
def module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path_factory.mktemp("ingest") / "mosquitto")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def stack(module_broker: Mosquitto, postgres: Postgres, template: str) -> AsyncIterator[Stack]:
    """One bridge for all tests of this module; each test has its own devices. Its window includes the seed's times."""
    database_url = new_database(postgres, template)
    db = await asyncpg.connect(database_url)
    past_days = (datetime.now(UTC) - SEED_TIME).days + 2
    async with serving(module_broker.bridge_url, database_url, past_limit_days=max(past_days, 90)) as health:
        yield Stack(module_broker, module_broker.url, db, health)
    await db.close()


def topic_of(name: str) -> str:
    return f"fleet/vehicle/{name}/telemetry"


def row_of(stack: Stack, query: str) -> Callable[[], object]:
    return lambda: stack.db.fetchrow(query)


async def test_seed_payloads_are_kept_in_history_and_live(stack: Stack) -> None:
    messages = [(topic_of("EV_002"), SEED_VEHICLE), ("fleet/meter/METER_001/telemetry", SEED_METER)]
    await publish_with_paho(stack.url, "5", messages)
    for table in ("vehicle_telemetry_history", "vehicle_live_status"):
        query = f"SELECT soc, kwh_delivered_dc, battery_temp, ts, extra FROM {table} WHERE vehicle_id = 'EV_002'"
        row = await until(row_of(stack, query))
        assert tuple(row) == (72.5, 4.25, 38.6, SEED_TIME, None)
    for table in ("meter_telemetry_history", "meter_live_status"):
        query = f"SELECT kwh_consumed_ac, voltage, ts, extra FROM {table} WHERE meter_id = 'METER_001'"
        row = await until(row_of(stack, query))
        assert tuple(row) == (5.1, 231.5, SEED_TIME, None)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_every_quality_of_service_is_stored_once(stack: Stack, version: Version, qos: int) -> None:
    paho, other = f"EV_paho_{qos}_{version[0]}", f"EV_aiomqtt_{qos}_{version[0]}"
    await publish_with_paho(stack.url, version, [(topic_of(paho), encode(r)) for r in minutes(paho, 20)], qos)
    async with device(stack.url, version) as client:
        for reading in minutes(other, 20):
            await client.publish(topic_of(other), encode(reading), qos)
    await stack.stored(paho, 20)
    await stack.stored(other, 20)


async def test_retained_reading_is_stored_once(stack: Stack) -> None:
    async with device(stack.url) as client:
        await client.publish(topic_of("EV_retained"), encode(vehicle("EV_retained")), 1, retain=True)
        await stack.stored("EV_retained", 1)
        await client.publish(topic_of("EV_retained"), b"", 1, retain=True)
    (reject,) = await until(lambda: stack.rejects("EV_retained"))
    assert reject["reason"] == "not_json"


async def test_dup_flag_does_not_hide_a_new_reading(stack: Stack) -> None:
    readings = list(minutes("EV_dup", 3))
    async with bare_device(stack.url) as bare:
        for number, reading in enumerate([*readings, readings[0]], start=1):
            bare.send(
                mqtt5.PublishPacket(
                    topic_of("EV_dup"), encode(reading), qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number, duplicate=True
                )
            )
            assert isinstance(await bare.receive(), mqtt5.PubAckPacket)
    await stack.stored("EV_dup", 3)
    assert await stack.rejects("EV_dup") == []


async def test_backlog_array_is_stored_whole(stack: Stack) -> None:
    await publish_with_paho(stack.url, "3.1.1", [(topic_of("EV_away"), encode_many(minutes("EV_away", 1000)))])
    await stack.stored("EV_away", 1000)


# -- Receipts


def asking(response_topic: str, correlation: bytes | None = None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = response_topic
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


async def receipt(client: aiomqtt.Client) -> tuple[str, object, object]:
    """The next message: its topic, its JSON, its correlation data."""
    async with asyncio.timeout(20):
        message = await anext(client.messages)
    assert isinstance(message.payload, bytes)
    return str(message.topic), json.loads(message.payload), getattr(message.properties, "CorrelationData", None)


async def test_receipt_is_given_with_its_correlation_data_after_the_commit(stack: Stack) -> None:
    readings = list(minutes("EV_r", 3))
    backlog = b"[" + b",".join([encode(readings[0]), b'{"vehicleId":"EV_r"}', encode(readings[1])]) + b"]"
    async with device(stack.url) as client:
        await client.subscribe("fleet/vehicle/EV_r/receipt", qos=1)
        await client.publish(topic_of("EV_r"), backlog, 1, properties=asking("fleet/vehicle/EV_r/receipt", b"\0n1"))
        topic, answer, correlation = await receipt(client)
        in_history = await stack.db.fetchval("SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_r'")
        await client.publish(topic_of("EV_r"), backlog, 0, properties=asking("fleet/vehicle/EV_r/receipt"))
        _, again, no_correlation = await receipt(client)
    assert (topic, correlation, in_history, no_correlation) == ("fleet/vehicle/EV_r/receipt", b"\0n1", 2, None)
    assert isinstance(answer, dict)
    assert (answer["stored"], answer["duplicates"], [r["index"] for r in answer["rejected"]]) == (2, 0, [1])
    assert "timestamp: Field required" in answer["rejected"][0]["reason"]
    assert again == {**answer, "stored": 0, "duplicates": 2}


_DEEP = "fleet/vehicle/EV_astray" + "/x" * 250


@pytest.mark.parametrize(
    "astray",
    [
        "fleet/vehicle/EV_other/receipt",
        "fleet/meter/EV_astray/receipt",
        "fleet/vehicle/EV_astray",
        "fleet/vehicle/EV_astray/",
        "fleet/vehicle/EV_astray/telemetry",
        "fleet/vehicle/EV_astray/telemetry/",
        "fleet/vehicle/EV_astray/Telemetry",
        "fleet/vehicle/EV_astray/#",
        "fleet/vehicle/EV_astray/+",
        "fleet/#",
        "fleet/bridge/main/status",
        "$SYS/broker/uptime",
        "",
        pytest.param(_DEEP, id="more levels than the broker accepts"),
    ],
)
async def test_receipt_goes_nowhere_else_and_costs_no_connection(stack: Stack, astray: str) -> None:
    connects = await stack.health.metric("fleet_mqtt_connects_total")
    given = await stack.health.metric("fleet_mqtt_receipts_total")
    own = "fleet/vehicle/EV_astray/receipt"
    async with device(stack.url) as client, device(stack.broker.bridge_url) as everything:
        await client.subscribe("fleet/vehicle/EV_astray/receipt", qos=1)
        await everything.subscribe("fleet/bridge/main/status", qos=1)
        await publish_unless_refused(stack.url, topic_of("EV_astray"), encode(vehicle("EV_astray")), asking(astray))
        await client.publish(topic_of("EV_astray"), encode(vehicle("EV_astray")), 1, properties=asking(own, b"2"))
        topic, _, correlation = await receipt(client)
        status = await receipt_payload(everything)
    assert (topic, correlation) == (own, b"2")
    assert status == b"online"
    assert await stack.health.metric("fleet_mqtt_receipts_total") == given + 1
    assert await stack.health.metric("fleet_mqtt_connects_total") == connects


async def publish_unless_refused(url: str, topic: str, payload: bytes, properties: Properties) -> None:
    """Publish. Newer brokers disconnect a client whose Response Topic is not the name of a topic: just as good."""
    with contextlib.suppress(aiomqtt.MqttError):
        async with device(url) as client:
            published = asyncio.ensure_future(client.publish(topic, payload, 1, properties=properties))
            ended = asyncio.ensure_future(anext(client.messages))
            _, waiting = await asyncio.wait({published, ended}, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            await asyncio.gather(published, ended, return_exceptions=True)


async def receipt_payload(client: aiomqtt.Client) -> object:
    async with asyncio.timeout(20):
        return (await anext(client.messages)).payload


async def test_receipts_are_not_counted_as_acks(stack: Stack) -> None:
    acks = await stack.health.metric("fleet_mqtt_acks_total")
    async with device(stack.url) as client:
        await client.subscribe("fleet/vehicle/EV_count/receipt", qos=1)
        for reading in minutes("EV_count", 5):
            properties = asking("fleet/vehicle/EV_count/receipt")
            await client.publish(topic_of("EV_count"), encode(reading), 1, properties=properties)
            await receipt(client)
    assert await stack.health.metric("fleet_mqtt_acks_total") == acks + 5


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_device_that_asks_for_no_receipt_hears_its_rejects(stack: Stack, protocol: Version) -> None:
    name = f"EV_hears{protocol[0]}"
    now = now_minute()
    good = encode(vehicle(name, now, soc=50))
    backlog = b"[" + b",".join([good, b'{"vehicleId":"EV_r"}', good]) + b"]"
    async with device(stack.url, protocol) as client:
        await client.subscribe(f"fleet/vehicle/{name}/rejects", qos=1)
        await client.publish(topic_of(name), b"no reading", 1)
        await client.publish(topic_of(name), backlog, 1)
        await client.publish(topic_of(name), encode(vehicle(name, now, soc=1.5)), 1)
        heard = [await receipt(client) for _ in range(3)]
    assert {topic for topic, _, _ in heard} == {f"fleet/vehicle/{name}/rejects"}
    first, second, third = (notice for _, notice, _ in heard)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert isinstance(third, dict)
    assert (first["reason"].split(":")[0], first["reading"]) == ("not_json", "no reading")
    assert (second["reason"].split(":")[0], json.loads(second["reading"])) == ("invalid_field", {"vehicleId": "EV_r"})
    assert (third["reason"].split(":")[0], json.loads(third["reading"])["soc"]) == ("conflict", 1.5)


async def test_reject_that_a_receipt_tells_is_not_told_twice(stack: Stack) -> None:
    async with device(stack.url) as client:
        await client.subscribe("fleet/vehicle/EV_told/#", qos=1)
        await client.publish(topic_of("EV_told"), b"1", 1, properties=asking("fleet/vehicle/EV_told/receipt"))
        await client.publish(topic_of("EV_told"), b"2", 1)
        heard = [topic.rpartition("/")[2] for topic in [(await receipt(client))[0] for _ in range(4)]]
    assert heard.count("receipt") == 1
    assert heard.count("rejects") == 1


async def test_notices_of_a_device_are_limited(stack: Stack) -> None:
    told = await stack.health.metric("fleet_mqtt_reject_notices_total")
    rejects = [b"1"] * 900
    async with device(stack.url) as client:
        await client.publish(topic_of("EV_many"), b"[" + b",".join([*rejects, encode(vehicle("EV_many"))]) + b"]", 1)
    await stack.stored("EV_many", 1)
    await until(lambda: _is_told(stack, told + 100))
    assert await stack.health.metric("fleet_mqtt_reject_notices_total") <= told + 110


async def _is_told(stack: Stack, notices: float) -> bool:
    return await stack.health.metric("fleet_mqtt_reject_notices_total") >= notices


_ARRAYS = [json.dumps([*range(n, n + 15)]).encode() for n in range(0, 4_500, 15)]


async def rejecting(stack: Stack, device: str) -> str:
    """The topic of a device of which more than one item of a message was rejected just now: its arrays wait."""
    topic = topic_of(device)
    await publish_with_paho(stack.url, "5", [(topic, _ARRAYS[0])])
    await until(lambda: _rejects_are(stack, device, 15))
    return topic


async def test_reading_is_stored_before_many_rejects_that_came_earlier(stack: Stack) -> None:
    wrong, right = await rejecting(stack, "EV_wrong"), topic_of("EV_right")
    messages = [(wrong, array) for array in _ARRAYS[1:]]
    await publish_with_paho(stack.url, "5", [*messages, (right, encode(vehicle("EV_right")))])
    await until(lambda: _rejects_are(stack, "EV_wrong", 4_500))
    written = "SELECT xmin FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_right'"
    assert await stack.db.fetchval(_WRITTEN_LATER.format(written), wrong) > 300


async def test_single_items_of_a_rejecting_device_do_not_wait_behind_its_arrays(stack: Stack) -> None:
    """They are as cheap as before, and thousands of them in turns would take all of the session's window."""
    wrong = await rejecting(stack, "EV_both")
    await publish_with_paho(stack.url, "5", [*((wrong, array) for array in _ARRAYS[1:]), (wrong, b"x")])
    await until(lambda: _rejects_are(stack, "EV_both", 4_501))
    written = "SELECT xmin FROM rejected_message WHERE topic = $1 AND payload = 'x'"
    assert await stack.db.fetchval(_WRITTEN_LATER.format(written), wrong) > 300


_WRITTEN_LATER = """
SELECT count(*) FROM rejected_message WHERE topic = $1 AND xmin::text::int8 > (
    SELECT xmin::text::int8 FROM ({}) AS written)
"""


async def _rejects_are(stack: Stack, device: str, count: int) -> bool:
    return len(await stack.rejects(device)) == count


# -- Invalid input: stored with its reason, and every valid neighbour is stored


def changed(**fields: object) -> bytes:
    """A valid reading with some fields changed; `...` removes one."""
    reading = {
        "vehicleId": "EV_bad",
        "soc": 72.5,
        "kwhDeliveredDc": 4.25,
        "batteryTemp": 38.6,
        "timestamp": format_timestamp(now_minute() - timedelta(hours=1)),
        **fields,
    }
    return json.dumps({name: value for name, value in reading.items() if value is not ...}).encode()


BAD = {
    "not JSON": (b"{soc: 72", "not_json"),
    "text": (b"hello", "not_json"),
    "empty": (b"", "not_json"),
    "white space": (b" \n", "not_json"),
    "NUL bytes": (b"\0\0\0", "not_json"),
    "bad UTF-8": (b'{"vehicleId":"EV_\xff\xfe"}', "invalid_field"),
    "deep nesting in an object": (b'{"a":' * 8_000, "not_json"),
    "two documents": (changed() + changed(), "not_json"),
    "string": (b'"a"', "not_a_reading"),
    "number": (b"42", "not_a_reading"),
    "null": (b"null", "not_a_reading"),
    "empty array": (b"[]", "not_a_reading"),
    "empty object": (b"{}", "invalid_field"),
    "number as text": (changed(kwhDeliveredDc="4.25"), "invalid_field"),
    "boolean": (changed(kwhDeliveredDc=True), "invalid_field"),
    "array value": (changed(kwhDeliveredDc=[1]), "invalid_field"),
    "no measure": (changed(soc=..., kwhDeliveredDc=..., batteryTemp=...), "invalid_field"),
    "nothing but null": (changed(soc=None, kwhDeliveredDc=None, batteryTemp=None), "invalid_field"),
    "no time": (changed(timestamp=...), "invalid_field"),
    "null as time": (changed(timestamp=None), "invalid_field"),
    "no id": (changed(vehicleId=...), "invalid_field"),
    "out of range": (changed(kwhDeliveredDc=1000.1), "invalid_field"),
    "NaN": (changed(kwhDeliveredDc=float("nan")), "invalid_field"),
    "nan, which is no JSON": (changed(soc="@").replace(b'"@"', b"nan"), "not_json"),
    "infinite": (changed(kwhDeliveredDc=float("inf")), "invalid_field"),
    "huge float": (changed(kwhDeliveredDc=0.5).replace(b"0.5", b"1e999"), "invalid_field"),
    "huge integer": (changed(kwhDeliveredDc=10**30), "invalid_field"),
    "very huge integer": (changed(kwhDeliveredDc=1.5).replace(b"1.5", b"9" * 5000), "invalid_field"),
    "id with a slash": (changed(vehicleId="EV/bad"), "invalid_field"),
    "id of 65": (changed(vehicleId="E" * 65), "invalid_field"),
    "number as id": (changed(vehicleId=7), "invalid_field"),
    "another device": (changed(vehicleId="EV_other"), "device_mismatch"),
    "meter on a vehicle's topic": (SEED_METER, "invalid_field"),
    "both ids": (changed(meterId="METER_1"), "not_a_reading"),
    "naive time": (changed(timestamp="2026-02-10T10:15:00"), "invalid_field"),
    "time as number": (changed(timestamp=1770718500), "invalid_field"),
    "no such day": (changed(timestamp="2026-02-30T10:15:00Z"), "invalid_field"),
    "1970": (changed(timestamp="1970-01-01T00:00:00Z"), "timestamp_out_of_range"),
    "2100": (changed(timestamp="2100-01-01T00:00:00Z"), "timestamp_out_of_range"),
    "1001 readings, one of them broken": (b"[" + b",".join([b"{}"] * 1000 + [b"nan"]) + b"]", "too_many_readings"),
    "1001 readings": (b"[" + b",".join([b"{}"] * 1001) + b"]", "too_many_readings"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_message_is_kept_with_its_reason_between_good_neighbours(stack: Stack, name: str) -> None:
    payload, reason = BAD[name]
    ident = f"EV_bad_{list(BAD).index(name)}"
    payload = payload.replace(b"EV_bad", ident.encode())
    before, after = minutes(ident, 2)
    messages = [(topic_of(ident), p) for p in (encode(before), payload, encode(after))]
    await publish_with_paho(stack.url, "5", messages)
    await stack.stored(ident, 2)
    (reject,) = await until(lambda: stack.rejects(ident))
    assert reject["reason"] == reason
    assert (bytes(reject["payload"]), reject["source"], reject["device"]) == (payload, "mqtt", ident)
    assert reject["detail"]


ODD = {
    "number as text": (changed(soc="72.5"), ["soc"]),
    "boolean": (changed(soc=True), ["soc"]),
    "out of range": (changed(soc=100.1, batteryTemp=-300), ["soc", "batteryTemp"]),
    "NaN": (changed(soc=float("nan")), ["soc"]),
    "huge float": (changed(soc=0.5).replace(b"0.5", b"1e999"), ["soc"]),
    "very huge integer": (changed(soc=1.5).replace(b"1.5", b"9" * 5000), ["soc"]),
    "NUL in an extra": (changed(note="a\0b"), ["note"]),
    "lone surrogate in an extra": (changed(note="\ud800"), ["note"]),
    "bad UTF-8 in an extra": (changed(note="@").replace(b"@", b"\xc3\x28"), ["note"]),
    "a large message of extra": (changed(note="x" * 250_000), ["extra"]),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_reading_is_stored_without_what_is_odd_and_its_receipt_warns(stack: Stack, name: str) -> None:
    payload, fields = ODD[name]
    ident = f"EV_odd_{list(ODD).index(name)}"
    answer_to = f"fleet/vehicle/{ident}/receipt"
    async with device(stack.url) as client:
        await client.subscribe(answer_to, qos=1)
        odd = payload.replace(b"EV_bad", ident.encode())
        await client.publish(topic_of(ident), odd, 1, properties=asking(answer_to))
        _, answer, _ = await receipt(client)
    assert isinstance(answer, dict)
    assert (answer["stored"], answer["duplicates"], answer["rejected"]) == (1, 0, [])
    assert [(warning["index"], warning["field"]) for warning in answer["warnings"]] == [(0, field) for field in fields]
    row = await stack.db.fetchrow("SELECT * FROM vehicle_telemetry_history WHERE vehicle_id = $1", ident)
    assert row is not None
    assert row["kwh_delivered_dc"] == 4.25
    assert (row["soc"] is None) == ("soc" in fields)
    assert "note" not in (row["extra"] or "")


async def test_missing_and_null_measures_are_null_in_the_row(stack: Stack) -> None:
    payload = changed(vehicleId="EV_some", soc=None, batteryTemp=...)
    await publish_with_paho(stack.url, "5", [(topic_of("EV_some"), payload)])
    await stack.stored("EV_some", 1)
    row = await stack.db.fetchrow("SELECT * FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_some'")
    assert row is not None
    assert (row["soc"], row["kwh_delivered_dc"], row["battery_temp"], row["extra"]) == (None, 4.25, None, None)


async def test_array_of_nothing_but_brackets_is_kept_as_its_one_element(stack: Stack) -> None:
    await publish_with_paho(stack.url, "5", [(topic_of("EV_brackets"), b"[" * 8_000)])
    (reject,) = await until(lambda: stack.rejects("EV_brackets"))
    assert (reject["reason"], len(reject["payload"])) == ("not_json", 7_999)


async def test_unknown_fields_are_kept(stack: Stack) -> None:
    reading = vehicle("EV_extra", firmware="2.1", cells=[1, {"t": None}], driver="Zoë 🚗")
    await publish_with_paho(stack.url, "5", [(topic_of("EV_extra"), encode(reading))])
    await stack.stored("EV_extra", 1)
    extra = await stack.db.fetchval("SELECT extra FROM vehicle_live_status WHERE vehicle_id = 'EV_extra'")
    assert json.loads(extra) == {"firmware": "2.1", "cells": [1, {"t": None}], "driver": "Zoë 🚗"}


async def test_bad_reading_in_the_middle_of_an_array_is_rejected_alone(stack: Stack) -> None:
    good = [encode(r) for r in minutes("EV_mid", 6)]
    bad = [b"null", changed(vehicleId="EV_mid", kwhDeliveredDc="x"), changed(), b'{"vehicleId":"EV_mid","soc":NaN}']
    array = b"[" + b",".join([*good[:2], bad[0], good[2], *bad[1:3], good[3], bad[3], *good[4:]]) + b"]"
    await publish_with_paho(stack.url, "5", [(topic_of("EV_mid"), array)])
    await stack.stored("EV_mid", 6)
    reasons = sorted(row["reason"] for row in await stack.rejects("EV_mid"))
    assert reasons == ["device_mismatch", "invalid_field", "invalid_field", "not_a_reading"]


@pytest.mark.parametrize("ident", ["a b", "ä", "x" * 65, "", "a.b"])
async def test_topic_without_a_device_id_is_rejected(stack: Stack, ident: str) -> None:
    topic = f"fleet/meter/{ident}/telemetry"
    await publish_with_paho(stack.url, "5", [(topic, encode(vehicle("EV_topic"))), (topic_of("EV_topic"), b"1")])
    query = "SELECT reason, device FROM rejected_message WHERE topic = $1"
    row = await until(lambda: stack.db.fetchrow(query, topic))
    assert tuple(row) == ("bad_topic", None)


async def test_message_too_large_costs_its_sender_alone(stack: Stack) -> None:
    connects = await stack.health.metric("fleet_mqtt_connects_total")
    huge = b'{"note":"' + b"x" * 10_000_000 + b'"}'
    async with device(stack.url) as neighbour:
        async with bare_device(stack.url) as bare:
            bare.send(
                mqtt5.PublishPacket(topic_of("EV_huge"), huge, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1),
            )
            async with asyncio.timeout(20):
                await bare.closed()
        await neighbour.publish(topic_of("EV_beside"), encode(vehicle("EV_beside")), 1)
    await stack.stored("EV_beside", 1)
    assert await stack.rejects("EV_huge") == []
    assert await stack.health.metric("fleet_mqtt_connects_total") == connects


async def test_largest_message_the_broker_takes_is_kept_whole_when_it_is_no_reading(stack: Stack) -> None:
    payload = changed(vehicleId="EV_large", timestamp=None, note="x" * 261_000)
    await publish_with_paho(stack.url, "5", [(topic_of("EV_large"), payload)])
    (reject,) = await until(lambda: stack.rejects("EV_large"))
    assert (reject["reason"], bytes(reject["payload"])) == ("invalid_field", payload)
