"""The wire format: golden bytes written by hand, every kind of invalid input, and arbitrary bytes of hypothesis."""

import json
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contract import METER, VEHICLE, Measure
from bridge.delivery import Item
from bridge.errors import NotJson, Rejected, TooManyReadings
from bridge.formats import contract_json, decode_body, decode_message, ndjson, of_content_type
from bridge.formats.contract_json import encode, encode_many, topic_of
from bridge.formats.extra import MAX_DEPTH
from bridge.formats.payload import Payload
from bridge.formats.port import MAX_READINGS_PER_BODY, AcceptedWindow, Format
from bridge.reading import Flagged, Reading, jsonb_text
from tests.readings import SEED_METER, SEED_TIME, SEED_VEHICLE, json_values, readings, vehicle

JSON, NDJSON = contract_json.FORMAT, ndjson.FORMAT
NOW = datetime(2026, 2, 10, 10, 16, tzinfo=UTC)
TIMES = AcceptedWindow(past=timedelta(days=90), future=timedelta(minutes=5)).at(NOW)
TOPIC = "fleet/vehicle/EV_002/telemetry"


def decode(payload: bytes, topic: str = TOPIC) -> list[Item]:
    return decode_message(topic, payload, TIMES)


def one(payload: bytes, topic: str = TOPIC) -> Reading:
    """The one reading that the message is, without a warning."""
    (item,) = decode(payload, topic)
    assert isinstance(item, Reading), item
    return item


def flagged(payload: bytes, topic: str = TOPIC) -> Flagged:
    """The one reading that the message is, with warnings."""
    (item,) = decode(payload, topic)
    assert isinstance(item, Flagged), item
    return item


def is_kept(item: Item) -> bool:
    return isinstance(item, Reading | Flagged)


def refused(payload: bytes, topic: str = TOPIC) -> Rejected:
    """The single reject of the message, over MQTT; over HTTP the body is refused, too."""
    (item,) = decode(payload, topic)
    assert isinstance(item, Rejected)
    return item


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(SEED_VEHICLE), **fields}).encode()


def test_vehicle_golden_bytes() -> None:
    reading = one(SEED_VEHICLE)
    assert reading.kind is VEHICLE
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
    reading = one(SEED_METER, "fleet/meter/METER_001/telemetry")
    assert reading.kind is METER
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
    reading = one(changed(timestamp=text))
    assert reading.timestamp == utc
    assert reading.timestamp.utcoffset() == timedelta(0)


BAD_FIELDS: list[tuple[dict[str, object], str, str]] = [
    ({"kwhDeliveredDc": "4.25"}, "invalid_field", "kwhDeliveredDc: Input should be a valid number"),
    ({"kwhDeliveredDc": True}, "invalid_field", "kwhDeliveredDc: Input should be a valid number"),
    ({"kwhDeliveredDc": [1]}, "invalid_field", "kwhDeliveredDc: Input should be a valid number"),
    ({"kwhChargedRegister": -0.001}, "invalid_field", "kwhChargedRegister: Input should be greater than or equal to 0"),
    ({"kwhDischargedRegister": 1e9 + 1}, "invalid_field", "kwhDischargedRegister: Input should be less than"),
    ({"soc": 200, "kwhDeliveredDc": 2000}, "invalid_field", "kwhDeliveredDc"),
    (
        {"soc": None, "kwhDeliveredDc": None, "batteryTemp": None},
        "invalid_field",
        "a reading must have at least one of soc",
    ),
    ({"soc": 200, "kwhDeliveredDc": None, "batteryTemp": None}, "invalid_field", "soc: Input should be less than"),
    ({"kwhDeliveredDc": 1000.5}, "invalid_field", "kwhDeliveredDc"),
    ({"kwhDeliveredDc": -1000.5}, "invalid_field", "kwhDeliveredDc"),
    ({"kwhDeliveredDc": float("nan")}, "invalid_field", "kwhDeliveredDc: Input should be a finite number"),
    ({"kwhDeliveredDc": float("inf")}, "invalid_field", "kwhDeliveredDc"),
    ({"timestamp": None}, "invalid_field", "timestamp: Input should be a valid string"),
    ({"vehicleId": None}, "invalid_field", "vehicleId"),
    ({"timestamp": "2026-02-10T10:15:00"}, "invalid_field", "timestamp: Input should be RFC 3339 with an offset"),
    ({"timestamp": "2026-02-10"}, "invalid_field", "timestamp"),
    ({"timestamp": 1770718500}, "invalid_field", "valid string, RFC 3339 with an offset, as in 2026-02-10T10:15:00Z"),
    ({"timestamp": "2026-02-30T10:15:00Z"}, "invalid_field", "timestamp: Input should be an existing date and time"),
    ({"timestamp": "2026-02-10T25:15:00Z"}, "invalid_field", "timestamp: Input should be an existing date and time"),
    ({"timestamp": "2026-02-10T23:59:60Z"}, "invalid_field", "without a leap second"),
    (
        {"timestamp": "2026-02-10T10:15:00+25:00"},
        "invalid_field",
        "timestamp: Input should be an existing date and time",
    ),
    ({"timestamp": "0001-01-01T00:00:00+14:00"}, "invalid_field", "year 0001 to 9999 in UTC"),
    ({"timestamp": "1970-01-01T00:00:00Z"}, "timestamp_out_of_range", "more than 90 days in the past"),
    ({"timestamp": "2100-01-01T00:00:00Z"}, "timestamp_out_of_range", "in the future"),
    ({"timestamp": "2026-02-10T10:21:01Z"}, "timestamp_out_of_range", "more than 300 s in the future"),
    ({"vehicleId": "EV_003"}, "device_mismatch", "vehicleId: EV_003 is not EV_002, the device of the topic"),
    ({"vehicleId": ""}, "invalid_field", "vehicleId"),
    ({"vehicleId": "a" * 65}, "invalid_field", "vehicleId"),
    ({"vehicleId": "EV/002"}, "invalid_field", "vehicleId: Device ids have 1 to 64 letters, digits, _ and -"),
    ({"vehicleId": "\ud800"}, "invalid_field", "vehicleId: not valid Unicode"),
    ({"vehicleId": "EV_002\n"}, "invalid_field", "vehicleId"),
    ({"vehicleId": "ÉV"}, "invalid_field", "vehicleId"),
    ({"vehicleId": 2}, "invalid_field", "vehicleId"),
    ({"meterId": "METER_001"}, "not_a_reading", "only one of them is allowed"),
    ({"meterId": None}, "not_a_reading", "only one of them is allowed"),
]

BAD_GAUGES: list[tuple[dict[str, object], str, str]] = [
    ({"soc": "72.5"}, "soc", "Input should be a valid number"),
    ({"soc": True}, "soc", "Input should be a valid number"),
    ({"soc": [1]}, "soc", "Input should be a valid number"),
    ({"soc": {"value": 1}}, "soc", "Input should be a valid number"),
    ({"soc": 100.001}, "soc", "Input should be less than or equal to 100"),
    ({"soc": -0.001}, "soc", "Input should be greater than or equal to 0"),
    ({"batteryTemp": 151}, "batteryTemp", "Input should be less than or equal to 150"),
    ({"batteryTemp": -61}, "batteryTemp", "Input should be greater than or equal to -60"),
    ({"powerKw": 1e300}, "powerKw", "Input should be less than or equal to 5000"),
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
    assert [is_kept(item) for item in items] == [True, False, True]
    assert isinstance(items[1], Rejected)
    assert items[1].reason == reason
    assert detail in items[1].detail


@pytest.mark.parametrize(("fields", "name", "detail"), BAD_GAUGES)
def test_bad_gauge_is_stored_as_null_with_its_original_and_a_warning(
    fields: dict[str, object], name: str, detail: str
) -> None:
    (alone,), (_, among, _) = decode(changed(**fields)), decode(_among(changed(**fields)))
    assert among == alone
    assert isinstance(alone, Flagged)
    reading, warnings = alone
    assert [(w.code, w.field, w.detail) for w in warnings] == [("refused", name, detail)]
    assert name not in reading.values()
    assert reading.kwh_delivered_dc == 4.25
    assert reading.extra == {"refused": fields}


def _among(bad: bytes) -> bytes:
    """An array with valid readings before and after."""
    before, after = (changed(timestamp=f"2026-02-10T10:1{minute}:00Z") for minute in (3, 4))
    return b"[" + b",".join([before, bad, after]) + b"]"


def test_long_original_of_a_gauge_is_shortened_and_costs_no_other_field() -> None:
    item = flagged(changed(soc="x" * 20_000, note="kept"))
    assert [warning.code for warning in item.warnings] == ["refused"]
    assert item.reading.extra == {"refused": {"soc": "x" * 200}, "note": "kept"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\0", "\ud800"])
def test_gauge_that_cannot_be_kept_as_it_came_is_kept_as_text(value: object) -> None:
    item = flagged(changed(soc=value))
    assert (item.warnings[0].code, item.warnings[0].field) == ("refused", "soc")
    assert item.reading.extra == {"refused": {"soc": json.dumps(value)[:200]}}


def test_two_bad_gauges_are_two_warnings_and_a_field_named_refused_is_kept_beside_them() -> None:
    item = flagged(changed(soc=101, batteryTemp="hot", refused=[1]))
    assert [w.field for w in item.warnings] == ["soc", "batteryTemp"]
    assert item.reading.values() == {"kwhDeliveredDc": 4.25}
    assert item.reading.extra == {"refused": {"soc": 101, "batteryTemp": "hot", "refused": [1]}}


@pytest.mark.parametrize("note", ["a\0b", float("nan"), float("-inf"), "\ud800", {"a": {"\0": 1}}, ["\udfff"]])
def test_field_that_jsonb_cannot_hold_is_dropped_alone(note: object) -> None:
    item = flagged(changed(note=note, firmware="2.1"))
    assert [(w.code, w.field) for w in item.warnings] == [("extra", "note")]
    assert item.reading.extra == {"firmware": "2.1"}
    assert item.reading.soc == 72.5


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_field_whose_name_jsonb_cannot_hold_is_dropped_alone(name: str) -> None:
    for others in ({"firmware": "2.1"}, {}):
        item = flagged(changed(**{name: 1, **others}))
        assert [(w.code, w.field) for w in item.warnings] == [("extra", ascii(name)[1:-1])]
        assert (item.reading.extra or {}) == others


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kwhDeliveredDC", "did you mean kwhDeliveredDc?"),
        ("kwh_charged_register", "did you mean kwhChargedRegister?"),
        ("KWH-DISCHARGED-REGISTER", "did you mean kwhDischargedRegister?"),
        ("kwhConsumedAc", "it is a measure of another kind of device"),
    ],
)
def test_energy_in_an_unknown_field_is_kept_with_a_warning_that_it_counts_nowhere(name: str, hint: str) -> None:
    payload = changed(**{name: 4.25})
    (alone,), (_, among, _) = decode(payload), decode(_among(payload))
    assert among == alone
    assert isinstance(alone, Flagged)
    assert alone.warnings == (("not_counted", name, f"an unknown field, which is in no figure; {hint}"),)
    assert alone.reading.extra == {name: 4.25}


@pytest.mark.parametrize("name", ["voltage", "powerkw", "kwh", "kwhDeliveredDcX", "k" * 16_000, "kwhConsumedAc"])
def test_other_unknown_fields_are_no_warning(name: str) -> None:
    value = None if name == "kwhConsumedAc" else 1
    assert one(changed(**{name: value})).extra == {name: value}


def test_warnings_about_energy_in_unknown_fields_are_few() -> None:
    spellings = {"".join(letters): 1 for letters in product(*((c, c.upper()) for c in "kwh"))}
    item = flagged(changed(**{f"{spelling}DeliveredDc": 1 for spelling in spellings if spelling != "kwh"}))
    assert [warning.code for warning in item.warnings] == ["not_counted"] * 3


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"stateOfCharge": 50, "volt": 1}, "kwhExportRegister, powerKw; it has stateOfCharge, volt"),
        ({"kwhDeliveredDc": 4.25}, "kwhExportRegister, powerKw; it has kwhDeliveredDc"),
        ({}, "kwhExportRegister, powerKw"),
        ({str(n): 1 for n in range(9)} | {"\ud800" * 500: 1}, "kwhExportRegister, powerKw; it has 0, 1, 2"),
    ],
)
def test_reading_without_a_measure_names_what_it_has(fields: dict[str, object], detail: str) -> None:
    reading = {"meterId": "METER_1", "timestamp": "2026-02-10T10:15:00Z"} | fields
    item = refused(json.dumps(reading).encode(), "fleet/meter/METER_1/telemetry")
    assert item.reason == "invalid_field"
    assert item.detail.endswith(detail)


@pytest.mark.parametrize("number", ["4,25", "-0,5"])
def test_decimal_comma_is_named(number: str) -> None:
    payload = SEED_VEHICLE.replace(b"4.25", number.encode())
    (alone,), (_, among, _) = decode(payload), decode(_among(payload))
    for item in (alone, among):
        assert isinstance(item, Rejected)
        assert item.reason == "not_json"
        assert item.detail.endswith("(numbers have a decimal point, not a comma)")
    other = refused(SEED_VEHICLE.replace(b"4.25", b"4.25,,"))
    assert "decimal" not in other.detail


def test_misspelt_id_field_is_named() -> None:
    payload = SEED_VEHICLE.replace(b"vehicleId", b"vehicle_ID")
    (item,) = decode_body(payload, TIMES)
    assert isinstance(item, Rejected)
    assert (item.reason, item.detail) == (
        "not_a_reading",
        "either vehicleId or meterId is required, not vehicle_ID",
    )


@pytest.mark.parametrize("extra", [{"note": "x" * 20_000}, {str(n): n for n in range(129)}])
def test_extra_beyond_its_bounds_is_dropped_with_a_warning(extra: dict[str, object]) -> None:
    item = flagged(changed(**extra))
    assert [(w.code, w.field) for w in item.warnings] == [("extra", "extra")]
    assert item.reading.extra is None
    assert item.reading == one(SEED_VEHICLE)


@pytest.mark.parametrize("missing", ["vehicleId", "timestamp"])
def test_missing_field_is_named(missing: str) -> None:
    fields = json.loads(SEED_VEHICLE)
    del fields[missing]
    item = refused(json.dumps(fields).encode())
    assert (item.reason, item.detail) == ("invalid_field", f"{missing}: Field required")


@pytest.mark.parametrize("measure", VEHICLE.measures)
def test_each_measure_alone_is_a_reading_and_null_means_absent(measure: Measure) -> None:
    fields = {"vehicleId": "EV_002", measure.name: measure.most, "timestamp": "2026-02-10T10:15:00Z"}
    nulls = {m.name: None for m in VEHICLE.measures if m is not measure}
    alone = one(json.dumps(fields).encode())
    assert alone.values() == {measure.name: measure.most}
    with_nulls = json.dumps({**nulls, **fields}).encode()
    assert one(with_nulls) == decode_body(with_nulls, TIMES, NDJSON)[0] == alone
    assert type(one(with_nulls)) is type(alone)


def test_no_measure_at_all_is_no_reading() -> None:
    item = refused(b'{"vehicleId":"EV_002","timestamp":"2026-02-10T10:15:00Z","firmware":"2"}')
    assert item.reason == "invalid_field"
    assert all(measure.name in item.detail for measure in VEHICLE.measures)


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
        (b'{"vehicleId":"EV_\xff"}', "invalid_field"),
        (b"[" * 8_000, "not_json"),
        (b'{"a":' * 8_000, "not_json"),
        (b"[" * 8_000 + b"]" * 8_000, "not_json"),
        (b"[" * 100_000, "too_large"),
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
    if payload[:1] != b"[":
        assert item.payload == payload
    elif reason == "not_json":
        assert item.payload == payload[1:].removesuffix(b"]" * (payload[-1:] == b"]")), "the one element of the array"


@pytest.mark.parametrize("payload", [b"42", b"[[]]"])
def test_element_without_fields_is_refused_in_terms_of_no_format(payload: bytes) -> None:
    assert refused(payload).detail == "a reading must be an object with named fields"


@pytest.mark.parametrize(
    "hostile",
    [
        changed().replace(b"4.25", b"1e400"),
        changed().replace(b"4.25", b"9" * 5000),
        changed().replace(b"4.25", b"NaN"),
        changed().replace(b"EV_002", b"EV_\xff"),
        changed().replace(b"EV_002", b"EV_\\ud800"),
    ],
)
def test_hostile_value_in_an_array_is_rejected_alone(hostile: bytes) -> None:
    items = decode(_among(hostile))
    assert [is_kept(item) for item in items] == [True, False, True]


@pytest.mark.parametrize(
    "hostile",
    [
        changed().replace(b"72.5", b"1e400"),
        changed().replace(b"72.5", b"9" * 5000),
        changed().replace(b"38.6", b"NaN"),
        changed(note="x").replace(b'"x"', b'"\\ud800"'),
        changed(note="x").replace(b'"x"', b'"\xff"'),
    ],
)
def test_hostile_gauge_or_extra_in_an_array_is_dropped_alone(hostile: bytes) -> None:
    items = decode(_among(hostile))
    assert [type(item) is Flagged for item in items] == [False, True, False]
    assert all(map(is_kept, items))


BAD_TOKENS = [b"nan", b"-nan", b"inf", b".5", b"50.", b"+50", b"050", b"50,5", b"NULL", b"", b"0x10", b"'50'", b"--"]
"""Tokens that sensors write instead of a number, and that no JSON parser accepts."""


@pytest.mark.parametrize("token", BAD_TOKENS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_bad_token_rejects_its_own_element_with_its_own_bytes(token: bytes, at: int) -> None:
    good = [changed(timestamp=f"2026-02-10T10:1{minute}:00Z") for minute in range(3)]
    bad = changed().replace(b"72.5", token)
    elements = [*good[:at], bad, *good[at + 1 :]]
    array = b" [ " + b" , ".join(elements) + b" ] "
    for items in (decode(array), decode_body(array, TIMES), decode_body(b"\n".join(elements), TIMES, NDJSON)):
        assert [is_kept(item) for item in items] == [n != at for n in range(3)]
        item = items[at]
        assert isinstance(item, Rejected)
        assert (item.reason, item.payload) == ("not_json", bad)
        assert item.detail


@pytest.mark.parametrize(
    ("before", "after"), [(b"\xef\xbb\xbf", b""), (b"", b"\0"), (b" \n", b"\r\n\0\0"), (b"\xef\xbb\xbf", b"\0")]
)
def test_marks_around_a_message_harm_nothing(before: bytes, after: bytes) -> None:
    for payload in (SEED_VEHICLE, b"[" + SEED_VEHICLE + b"]"):
        assert one(before + payload + after) == one(SEED_VEHICLE)
        assert decode_body(before + payload + after, TIMES) == [one(SEED_VEHICLE)]
    assert decode_body(before + SEED_VEHICLE + after, TIMES, NDJSON) == [one(SEED_VEHICLE)]


def test_trailing_comma_adds_no_element() -> None:
    assert decode(b"[" + SEED_VEHICLE + b",]") == [one(SEED_VEHICLE)]
    items = decode(b"[" + SEED_VEHICLE + b",,]")
    assert [is_kept(item) for item in items] == [True, False]


def test_array_cut_off_keeps_what_came_whole() -> None:
    good = [changed(timestamp=f"2026-02-10T10:1{minute}:00Z") for minute in range(2)]
    array = b"[" + b",".join([*good, SEED_VEHICLE]) + b"]"
    in_the_last = array.rindex(SEED_VEHICLE)
    for end in range(in_the_last + 1, len(array) - 1):
        items = decode(array[:end])
        assert [is_kept(item) for item in items] == [True, True, False], array[:end]
    assert [is_kept(item) for item in decode(array[:in_the_last])] == [True, True]
    *whole, last = decode(array[:-1])
    assert all(isinstance(item, Reading) for item in whole)
    assert isinstance(last, Flagged)
    assert [w.code for w in last.warnings] == ["truncated"]
    assert last.reading == one(SEED_VEHICLE)


def test_what_follows_the_array_is_one_more_rejected_element() -> None:
    items = decode_body(b"[" + SEED_VEHICLE + b"]" + SEED_VEHICLE, TIMES)
    assert items[0] == one(SEED_VEHICLE)
    assert [is_kept(item) for item in items] == [True, True]
    items = decode(b"[" + SEED_VEHICLE + b"]x")
    assert [is_kept(item) for item in items] == [True, False]


def test_array_of_a_thousand_is_taken_and_one_more_is_not() -> None:
    many = [vehicle(at=SEED_TIME - timedelta(minutes=n)) for n in range(1_001)]
    assert decode(encode_many(many[:1_000])) == many[:1_000]
    item = refused(encode_many(many))
    assert item.reason == "too_many_readings"
    assert "more than 1000 readings" in item.detail
    assert item.payload == encode_many(many)
    spoiled = encode_many(many).replace(b"0", b"nan", 1)
    assert refused(spoiled).reason == "too_many_readings"
    assert len(decode_message(TOPIC, spoiled, TIMES, most=len(spoiled))) == 1_001


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
    reading = one(changed(firmware="2.1", tripKm=10_000, nested={"a": [1, None]}))
    assert reading.extra == {"firmware": "2.1", "tripKm": 10_000, "nested": {"a": [1, None]}}


def test_duplicate_json_keys_last_one_counts() -> None:
    assert one(SEED_VEHICLE[:-1] + b',"soc":10}').soc == 10


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
    (element,), (line,) = decode_body(b"[" + text + b"]", TIMES), decode_body(text, TIMES, NDJSON)
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
    """pydantic cannot serialize more than 255 levels, jiter cannot parse more than 200, json about 990."""
    text = json.dumps({**json.loads(SEED_VEHICLE), "x": _nested(levels), **changes}).encode()
    mqtt = [decode(text), decode(b"[" + text + b"]")]
    http = [decode_body(text, TIMES), decode_body(b"[" + text + b"]", TIMES)]
    http.append(decode_body(text, TIMES, NDJSON))
    for protocol, forms in (("mqtt", mqtt), ("http", http)):
        verdicts = {str(item) if isinstance(item, Rejected) else repr(item) for (item,) in forms}
        assert len(verdicts) == 1, (protocol, verdicts)
    if not changes:
        assert [type(item) is Flagged for item in mqtt[0]] == [levels > MAX_DEPTH]


def test_bug_in_decoding_rejects_the_message_and_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: bytes) -> Reading:
        raise RecursionError("a bug")

    payload = Payload(VEHICLE)
    payload.from_json = fails
    monkeypatch.setattr("bridge.formats.contract_json._OF_TOPIC", {"fleet/v": payload})
    item = refused(SEED_VEHICLE)
    assert str(item) == "not_a_reading: cannot be decoded: RecursionError: a bug"
    assert item.payload == SEED_VEHICLE


def test_element_too_deep_to_be_written_again_is_kept_as_it_came() -> None:
    deep = b'{"x":' + b"[" * 600 + b"]" * 600 + b"}"
    first, second = decode(b"[" + SEED_VEHICLE + b"," + deep + b"]")
    assert first == one(SEED_VEHICLE)
    assert isinstance(second, Rejected)
    assert (second.reason, second.payload) == ("not_json", deep)


def test_ndjson_broken_line_is_rejected_alone() -> None:
    body = SEED_VEHICLE + b"\nhello\r\n\n" + SEED_METER
    first, second, third = decode_body(body, TIMES, NDJSON)
    assert first.kind is VEHICLE
    assert isinstance(second, Rejected)
    assert (second.reason, second.payload, second.format) == ("not_json", b"hello", "ndjson")
    assert third.kind is METER


@given(readings)
def test_round_trip_keeps_every_value(reading: Reading) -> None:
    wide = AcceptedWindow(timedelta(days=400), timedelta(days=400)).at(NOW)
    assert decode_message(topic_of(reading), encode(reading), wide) == [reading]
    assert decode_message(topic_of(reading), encode_many([reading]), wide) == [reading]
    assert decode_body(encode(reading), wide) == [reading]
    assert decode_body(encode(reading), wide, NDJSON) == [reading]


@given(st.text(), st.binary())
def test_any_message_is_at_least_one_item(topic: str, payload: bytes) -> None:
    assert decode(payload, topic)
    assert decode(payload)


@given(st.lists(json_values, min_size=1, max_size=5))
def test_any_json_array_keeps_its_good_elements(elements: list[object]) -> None:
    text = json.dumps([json.loads(SEED_VEHICLE), *elements])
    items = decode(text.encode())
    assert len(items) == len(elements) + 1
    assert items[0] == one(SEED_VEHICLE)


_any_text = st.text(st.characters())


@given(st.dictionaries(_any_text, json_values | _any_text | st.floats(), max_size=4))
@example({"\\u0000": None})
@example({"refused": {"\0": 1}})
@example({"refused": {"a": "\ud800", "\ud800": float("nan")}})
def test_any_extra_is_kept_or_dropped_by_name(extra: dict[str, object]) -> None:
    (item,) = decode(changed(**{**extra, **json.loads(SEED_VEHICLE)}))
    if not extra.keys().isdisjoint(["meterId", *(m.name for m in VEHICLE.measures)]):
        return
    assert not isinstance(item, Rejected), item
    reading, warnings = item if isinstance(item, Flagged) else (item, ())
    assert reading.values() == one(SEED_VEHICLE).values()
    unknown = {k: v for k, v in extra.items() if k not in json.loads(SEED_VEHICLE)}
    dropped = {w.field for w in warnings if w.code != "not_counted"}
    kept = {k: v for k, v in unknown.items() if ascii(k)[1:-1][:100] not in dropped and k != "refused"}
    assert {k: v for k, v in (reading.extra or {}).items() if k != "refused"} == kept
    assert "\\u0000" not in jsonb_text(reading.extra or {}).replace("\\\\", "")  # an escaped backslash begins none


def with_unknown(value: str) -> bytes:
    """A reading with an unknown field of this JSON text."""
    return changed(x=0).replace(b'"x": 0', b'"x": ' + value.encode())


TOO_LARGE = {
    "lists": (with_unknown("[" + ",".join(["[]"] * 8_000) + "]"), "more than 8000 lists and objects"),
    "objects": (with_unknown("[" + ",".join(["{}"] * 8_000) + "]"), "more than 8000 lists and objects"),
    "nesting": (b"[" * 8_001, "more than 8000 lists and objects"),
    "values": (with_unknown("[" + ",".join(["1"] * 64_001) + "]"), "more than 64000 values"),
    "bytes": (with_unknown('"' + "x" * 262_000 + '"'), "more than 262000 bytes"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_message_beyond_the_limits_is_rejected_whole_before_it_is_decoded(name: str) -> None:
    payload, detail = TOO_LARGE[name]
    item = refused(payload)
    assert (item.reason, item.device, item.payload) == ("too_large", "EV_002", payload)
    assert detail in item.detail
    assert refused(payload, "fleet/nothing").reason == "bad_topic"


@pytest.mark.parametrize("name", ["lists", "objects", "values", "bytes"])
def test_message_beyond_the_limits_is_decoded_by_a_replay_that_has_none(name: str) -> None:
    payload, _ = TOO_LARGE[name]
    (item,) = decode_message(TOPIC, payload, TIMES, most=len(payload))
    assert isinstance(item, Flagged)
    assert [warning.code for warning in item.warnings] == ["extra"]


def test_message_at_the_limits_is_decoded() -> None:
    many = [vehicle(at=SEED_TIME - timedelta(minutes=n)) for n in range(1_000)]
    text = b"[" + b",".join(encode(r)[:-1] + b',"x":[[],{}],"y":[1,2,3]}' for r in many) + b"]"
    assert sum(isinstance(item, Reading) for item in decode(text)) == 1_000


def test_body_with_too_many_lists_and_objects_is_refused_whole() -> None:
    body = b"[" + b",".join([b'{"a":[]}'] * 640_000) + b"]"
    with pytest.raises(TooManyReadings, match="the body has more than 1280000 lists and objects"):
        decode_body(body, TIMES)


def test_limits_of_a_message_are_none_of_a_body() -> None:
    """An array over HTTP keeps its good elements, however many lists follow them."""
    good, bad = decode_body(b"[" + SEED_VEHICLE + b"," + b"[" * 100_000, TIMES)
    assert isinstance(good, Reading)
    assert isinstance(bad, Rejected)
    assert bad.reason == "not_json"


@pytest.mark.parametrize(("separator", "brackets"), [(b",", (b"[", b"]")), (b"\n", (b"", b""))])
def test_body_with_too_many_readings_is_refused_whole(separator: bytes, brackets: tuple[bytes, bytes]) -> None:
    body = brackets[0] + separator.join([b"1"] * (MAX_READINGS_PER_BODY + 1)) + brackets[1]
    with pytest.raises(TooManyReadings):
        decode_body(body, TIMES, NDJSON if separator == b"\n" else JSON)


def test_ndjson_lines_may_end_in_crlf_and_blanks_are_no_lines() -> None:
    body = b"\r\n \t\n\n".join([SEED_VEHICLE, b"", b" " + SEED_METER]) + b"\r\n"
    assert [item.kind for item in decode_body(body, TIMES, NDJSON) if not isinstance(item, Rejected)] == [
        VEHICLE,
        METER,
    ]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/x-ndjson;charset=utf-8;", ndjson.FORMAT),
        ('Application/X-NDJSON ; charset="UTF-8"', ndjson.FORMAT),
        ("application/json;", contract_json.FORMAT),
        (";charset=utf-8", contract_json.FORMAT),
        ("application/json;charset=utf-8;charset=latin-1", None),
        ("application/json;charset=latin-1;", None),
        ("application/json;version=2", None),
        ("text/plain;", None),
    ],
)
def test_format_of_a_content_type(content_type: str, expected: Format | None) -> None:
    assert of_content_type(content_type) is expected
