"""The wire format: golden bytes written by hand, every kind of bad input, and anything at all from hypothesis."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import NotJson, Rejected, TooManyReadings
from bridge.payload import VEHICLE
from bridge.reading import MeterReading, Reading, VehicleReading, jsonb_text
from bridge.wire import (
    MAX_DEPTH,
    MAX_READINGS_PER_BODY,
    AcceptedWindow,
    decode_body,
    decode_message,
    encode,
    encode_many,
    topic_of,
)
from tests.readings import SEED_METER, SEED_TIME, SEED_VEHICLE, json_values, readings, vehicle

NOW = datetime(2026, 2, 10, 10, 16, tzinfo=UTC)
TIMES = AcceptedWindow(past=timedelta(days=90), future=timedelta(minutes=5)).at(NOW)
TOPIC = "fleet/vehicle/EV_002/telemetry"


def decode(payload: bytes, topic: str = TOPIC) -> list[Reading | Rejected]:
    return decode_message(topic, payload, TIMES)


def refused(payload: bytes, topic: str = TOPIC) -> Rejected:
    """The one rejection that the message is, by MQTT; over HTTP the body is refused too."""
    (item,) = decode(payload, topic)
    assert isinstance(item, Rejected)
    assert item.source == "mqtt"
    return item


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(SEED_VEHICLE), **fields}).encode()


def test_vehicle_golden_bytes() -> None:
    (reading,) = decode(SEED_VEHICLE)
    assert isinstance(reading, VehicleReading)
    assert (reading.vehicle_id, reading.soc, reading.kwh_delivered_dc, reading.battery_temp) == (
        "EV_002",
        72.5,
        4.25,
        38.6,
    )
    assert reading.timestamp == SEED_TIME
    assert reading.extra is None
    assert encode(reading) == SEED_VEHICLE
    assert topic_of(reading) == TOPIC


def test_meter_golden_bytes() -> None:
    (reading,) = decode(SEED_METER, "fleet/meter/METER_001/telemetry")
    assert isinstance(reading, MeterReading)
    assert (reading.meter_id, reading.kwh_consumed_ac, reading.voltage) == ("METER_001", 5.1, 231.5)
    assert reading.timestamp == SEED_TIME
    assert encode(reading) == SEED_METER


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-02-10T11:15:00+01:00", SEED_TIME),
        ("2026-02-10t10:15:00z", SEED_TIME),
        ("2026-02-10 10:15:00Z", SEED_TIME),
        ("2026-02-10T10:15:00.123456Z", SEED_TIME.replace(microsecond=123456)),
        ("2026-02-10T10:15:00.1234567Z", SEED_TIME.replace(microsecond=123456)),
        ("2026-02-10T05:45:00.5-04:30", SEED_TIME.replace(microsecond=500000)),
    ],
)
def test_timestamp_with_an_offset_is_stored_as_utc(text: str, utc: datetime) -> None:
    (reading,) = decode(changed(timestamp=text))
    assert isinstance(reading, VehicleReading), reading
    assert reading.timestamp == utc
    assert reading.timestamp.utcoffset() == timedelta(0)


BAD_FIELDS: list[tuple[dict[str, object], str, str]] = [
    ({"soc": "72.5"}, "invalid_field", "soc: Input should be a valid number"),
    ({"soc": True}, "invalid_field", "soc: Input should be a valid number"),
    ({"soc": None}, "invalid_field", "soc"),
    ({"soc": [1]}, "invalid_field", "soc"),
    ({"soc": 100.001}, "invalid_field", "soc: Input should be less than or equal to 100"),
    ({"soc": -0.001}, "invalid_field", "soc"),
    ({"batteryTemp": 151}, "invalid_field", "batteryTemp"),
    ({"batteryTemp": -61}, "invalid_field", "batteryTemp"),
    ({"kwhDeliveredDc": 1000.5}, "invalid_field", "kwhDeliveredDc"),
    ({"kwhDeliveredDc": -1000.5}, "invalid_field", "kwhDeliveredDc"),
    ({"soc": float("nan")}, "invalid_field", "soc"),
    ({"soc": float("inf")}, "invalid_field", "soc"),
    ({"timestamp": "2026-02-10T10:15:00"}, "invalid_field", "timestamp: Input should be RFC 3339 with an offset"),
    ({"timestamp": "2026-02-10"}, "invalid_field", "timestamp"),
    ({"timestamp": 1770718500}, "invalid_field", "timestamp: Input should be a valid string"),
    ({"timestamp": "2026-02-30T10:15:00Z"}, "invalid_field", "timestamp: day"),
    ({"timestamp": "2026-02-10T25:15:00Z"}, "invalid_field", "timestamp: hour"),
    ({"timestamp": "0001-01-01T00:00:00+14:00"}, "invalid_field", "timestamp"),
    ({"timestamp": "1970-01-01T00:00:00Z"}, "timestamp_out_of_range", "in the past"),
    ({"timestamp": "2100-01-01T00:00:00Z"}, "timestamp_out_of_range", "in the future"),
    ({"timestamp": "2026-02-10T10:21:01Z"}, "timestamp_out_of_range", "0:05:00 in the future"),
    ({"vehicleId": "EV_003"}, "device_mismatch", "vehicleId: EV_003 is not the topic's EV_002"),
    ({"vehicleId": ""}, "invalid_field", "vehicleId"),
    ({"vehicleId": "a" * 65}, "invalid_field", "vehicleId"),
    ({"vehicleId": "EV/002"}, "invalid_field", "vehicleId"),
    ({"vehicleId": "EV_002\n"}, "invalid_field", "vehicleId"),
    ({"vehicleId": "ÉV"}, "invalid_field", "vehicleId"),
    ({"vehicleId": 2}, "invalid_field", "vehicleId"),
    ({"meterId": "METER_001"}, "not_a_reading", "only one of them is allowed"),
    ({"note": "a\u0000b"}, "invalid_field", "note: NUL cannot be stored"),
    ({"note": float("nan")}, "invalid_field", "note"),
]


@pytest.mark.parametrize(("fields", "reason", "detail"), BAD_FIELDS)
def test_bad_field_names_the_field_and_the_reason(fields: dict[str, object], reason: str, detail: str) -> None:
    item = refused(changed(**fields))
    assert item.reason == reason
    assert detail in item.detail
    assert item.device == "EV_002"


@pytest.mark.parametrize(("fields", "reason", "detail"), BAD_FIELDS)
def test_bad_element_leaves_its_neighbours(fields: dict[str, object], reason: str, detail: str) -> None:
    good = changed(timestamp="2026-02-10T10:14:00Z")
    items = decode(b"[" + b",".join([good, changed(**fields), SEED_VEHICLE]) + b"]")
    assert [isinstance(item, VehicleReading) for item in items] == [True, False, True]
    assert isinstance(items[1], Rejected)
    assert items[1].reason == reason


@pytest.mark.parametrize("missing", ["soc", "kwhDeliveredDc", "batteryTemp", "timestamp"])
def test_missing_field_is_named(missing: str) -> None:
    fields = json.loads(SEED_VEHICLE)
    del fields[missing]
    item = refused(json.dumps(fields).encode())
    assert (item.reason, item.detail) == ("invalid_field", f"{missing}: Field required")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b" ", "not_json"),
        (b"hello", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"\x00", "not_json"),
        (SEED_VEHICLE[:-1], "not_json"),
        (SEED_VEHICLE + b"x", "not_json"),
        (SEED_VEHICLE + SEED_VEHICLE, "not_json"),
        (b'{"vehicleId":"EV_\xff"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b"[" * 100_000 + b"]" * 100_000, "not_json"),
        (b"null", "not_a_reading"),
        (b"42", "not_a_reading"),
        (b'"text"', "not_a_reading"),
        (b"[]", "not_a_reading"),
        (b"{}", "invalid_field"),
        (b"[1]", "not_a_reading"),
        (b"[[]]", "not_a_reading"),
    ],
)
def test_not_a_reading_is_kept_as_it_came(payload: bytes, reason: str) -> None:
    item = refused(payload)
    assert item.reason == reason
    assert item.detail
    if payload[:1] != b"[" or reason == "not_json":
        assert item.payload == payload


@pytest.mark.parametrize(
    "hostile",
    [
        changed(soc=1).replace(b"1", b"1e400", 1),
        changed().replace(b"72.5", b"9" * 5000),
        changed(note="x").replace(b'"x"', b'"\\ud800"'),
        changed().replace(b"38.6", b"NaN"),
        changed().replace(b"EV_002", b"EV_\xff"),
    ],
)
def test_hostile_value_in_an_array_is_rejected_alone(hostile: bytes) -> None:
    items = decode(
        b"[" + SEED_VEHICLE + b"," + hostile + b"," + changed(soc=1, timestamp="2026-02-10T10:13:00Z") + b"]"
    )
    assert [isinstance(item, VehicleReading) for item in items] == [True, False, True]


def test_array_of_a_thousand_is_taken_and_one_more_is_not() -> None:
    many = [vehicle(at=SEED_TIME - timedelta(minutes=n)) for n in range(1_001)]
    assert decode(encode_many(many[:1_000])) == many[:1_000]
    item = refused(encode_many(many))
    assert item.reason == "too_many_readings"
    assert "1001 readings; at most 1000" in item.detail


@pytest.mark.parametrize(
    "topic",
    [
        "fleet/vehicle/EV 2/telemetry",
        "fleet/vehicle//telemetry",
        f"fleet/vehicle/{'a' * 65}/telemetry",
        "fleet/truck/EV_002/telemetry",
        "fleet/vehicle",
        "",
    ],
)
def test_topic_without_a_device_is_rejected(topic: str) -> None:
    assert refused(SEED_VEHICLE, topic).reason == "bad_topic"


def test_kind_of_the_topic_decides() -> None:
    assert refused(SEED_VEHICLE, "fleet/meter/EV_002/telemetry").reason == "invalid_field"


def test_unknown_fields_are_kept() -> None:
    (reading,) = decode(changed(firmware="2.1", odometerKm=10_000, nested={"a": [1, None]}))
    assert isinstance(reading, VehicleReading)
    assert reading.extra == {"firmware": "2.1", "odometerKm": 10_000, "nested": {"a": [1, None]}}


def test_duplicate_json_keys_last_one_counts() -> None:
    (reading,) = decode(SEED_VEHICLE[:-1] + b',"soc":10}')
    assert isinstance(reading, VehicleReading)
    assert reading.soc == 10


def test_body_with_both_or_neither_id_is_rejected() -> None:
    for payload in (b"{}", b'{"vehicleId":"A","meterId":"B"}'):
        (item,) = decode_body(payload, TIMES)
        assert isinstance(item, Rejected)
        assert item.reason == "not_a_reading"


def test_body_not_json_is_no_item_at_all() -> None:
    with pytest.raises(NotJson):
        decode_body(b"hello", TIMES)


@given(
    st.sampled_from([SEED_VEHICLE, SEED_METER]),
    st.dictionaries(
        st.sampled_from(["vehicleId", "meterId", "soc", "voltage", "timestamp", "firmware"]),
        st.sampled_from(
            ["EV_1", "", 50, -1, 231.5, True, None, [], {"a": 1}, "2026-02-10T10:15:00Z", "1970-01-01T00:00:00Z"]
        ),
        max_size=4,
    ),
)
def test_line_means_what_the_same_object_means_in_an_array(seed: bytes, fields: dict[str, object]) -> None:
    text = json.dumps({**json.loads(seed), **fields}).encode()
    (element,), (line,) = decode_body(b"[" + text + b"]", TIMES), decode_body(text, TIMES, ndjson=True)
    if isinstance(element, Rejected):
        assert isinstance(line, Rejected)
        assert (line.reason, line.detail, line.device) == (element.reason, element.detail, element.device)
    else:
        assert line == element


def _nested(levels: int) -> object:
    value: object = 1
    for n in range(levels):
        value = [value] if n % 2 else {"a": value}
    return value


@pytest.mark.parametrize("changes", [{}, {"timestamp": "1970-01-01T00:00:00Z"}, {"vehicleId": "EV_OTHER"}])
@pytest.mark.parametrize("levels", [99, 100, 101, 199, 200, 255, 256, 300, 450])
def test_deep_field_is_judged_alike_in_every_form(levels: int, changes: dict[str, str]) -> None:
    """pydantic gives up writing at 255 levels, the fast parser reading at 200, json at about 990."""
    text = json.dumps({**json.loads(SEED_VEHICLE), "x": _nested(levels), **changes}).encode()
    mqtt = [decode(text), decode(b"[" + text + b"]")]
    http = [decode_body(text, TIMES), decode_body(b"[" + text + b"]", TIMES)]
    http.append(decode_body(text, TIMES, ndjson=True))
    for door, forms in (("mqtt", mqtt), ("http", http)):
        verdicts = {str(item) if isinstance(item, Rejected) else encode(item) for (item,) in forms}
        assert len(verdicts) == 1, (door, verdicts)
    if not changes:
        assert isinstance(mqtt[0][0], Rejected) == (levels > MAX_DEPTH)


def test_bug_in_decoding_rejects_the_message_and_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: bytes) -> VehicleReading:
        raise RecursionError("a bug")

    monkeypatch.setattr("bridge.wire._OF_TOPIC", {"fleet/v": dataclasses.replace(VEHICLE, from_json=fails)})
    item = refused(SEED_VEHICLE)
    assert str(item) == "not_a_reading: cannot be decoded: RecursionError: a bug"
    assert item.payload == SEED_VEHICLE


def test_array_too_deep_to_be_written_again_is_kept_whole() -> None:
    deep = b'{"x":' + b"[" * 600 + b"]" * 600 + b"}"
    item = refused(b"[" + SEED_VEHICLE + b"," + deep + b"]")
    assert (item.reason, item.payload[:1]) == ("not_json", b"[")


def test_ndjson_broken_line_is_rejected_alone() -> None:
    body = SEED_VEHICLE + b"\nhello\r\n\n" + SEED_METER
    first, second, third = decode_body(body, TIMES, ndjson=True)
    assert isinstance(first, VehicleReading)
    assert isinstance(second, Rejected)
    assert (second.reason, second.payload) == ("not_json", b"hello")
    assert isinstance(third, MeterReading)


@given(readings)
def test_round_trip_keeps_every_value(reading: Reading) -> None:
    wide = AcceptedWindow(timedelta(days=400), timedelta(days=400)).at(NOW)
    assert decode_message(topic_of(reading), encode(reading), wide) == [reading]
    assert decode_message(topic_of(reading), encode_many([reading]), wide) == [reading]
    assert decode_body(encode(reading), wide) == [reading]
    assert decode_body(encode(reading), wide, ndjson=True) == [reading]


@given(st.text(), st.binary())
def test_any_message_is_at_least_one_item(topic: str, payload: bytes) -> None:
    assert decode(payload, topic)
    assert decode(payload)


@given(st.lists(json_values, min_size=1, max_size=5))
def test_any_json_array_keeps_its_good_elements(elements: list[object]) -> None:
    text = json.dumps([json.loads(SEED_VEHICLE), *elements])
    items = decode(text.encode())
    assert len(items) == len(elements) + 1
    assert isinstance(items[0], VehicleReading)


@given(st.dictionaries(st.text(), json_values, max_size=4))
@example({"\\u0000": None})
def test_any_extra_is_kept_or_rejected_by_name(extra: dict[str, object]) -> None:
    (item,) = decode(changed(**{**extra, **json.loads(SEED_VEHICLE)}))
    if isinstance(item, Rejected):
        assert item.reason in ("invalid_field", "not_a_reading")
    else:
        assert (item.extra or {}) == {k: v for k, v in extra.items() if k not in json.loads(SEED_VEHICLE)}
        assert "\\u0000" not in jsonb_text(item.extra or {}).replace("\\\\", "")  # an escaped backslash begins none


@pytest.mark.parametrize(("separator", "brackets"), [(b",", (b"[", b"]")), (b"\n", (b"", b""))])
def test_body_with_too_many_readings_is_refused_whole(separator: bytes, brackets: tuple[bytes, bytes]) -> None:
    body = brackets[0] + separator.join([b"1"] * (MAX_READINGS_PER_BODY + 1)) + brackets[1]
    with pytest.raises(TooManyReadings):
        decode_body(body, TIMES, ndjson=separator == b"\n")


def test_ndjson_lines_may_end_in_crlf_and_blanks_are_no_lines() -> None:
    body = b"\r\n \t\n\n".join([SEED_VEHICLE, b"", b" " + SEED_METER]) + b"\r\n"
    assert [item.kind for item in decode_body(body, TIMES, ndjson=True) if not isinstance(item, Rejected)] == [
        "vehicle",
        "meter",
    ]
