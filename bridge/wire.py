"""Topic and bytes to readings and back. Pure: no clock, no socket, no await.

Every byte string decodes to at least one item: a reading, or the rejection that names the field and the reason.
In an array each element stands for itself. The formats are those of DESIGN "Contracts" (docs/devices.md, docs/api.md).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import to_json

from bridge.document import deeper_than, dump, loads
from bridge.errors import NotJson, Reason, Rejected, Source, TooManyReadings
from bridge.payload import METER, PAYLOADS, VEHICLE, Payload
from bridge.reading import Kind, Reading, format_timestamp, is_device_id, jsonb_text

MAX_READINGS_PER_MESSAGE = 1_000
MAX_READINGS_PER_BODY = 10_000
MAX_DEPTH = 100
"""Levels of lists and objects in an unknown field: far from where any parser or database gives up."""
_MAX_DETAIL = 500
_lines = re.compile(rb"\S[^\r\n]*").finditer

_OTHER_ID = {"vehicle": "meterId", "meter": "vehicleId"}
_OF_TOPIC: dict[str, Payload[Any]] = {"fleet/v": VEHICLE, "fleet/m": METER}  # by how the topic begins


class AcceptedTimes(NamedTuple):
    """The device times that are taken at one moment."""

    now: datetime
    earliest: datetime
    latest: datetime


class AcceptedWindow(NamedTuple):
    """How far a device's clock may be from ours. Outside, one reading could freeze a live row for ever."""

    past: timedelta
    future: timedelta

    def at(self, now: datetime) -> AcceptedTimes:
        """What it means now."""
        return AcceptedTimes(now, now - self.past, now + self.future)


class _Origin(NamedTuple):
    source: Source
    topic: str | None = None
    device: str | None = None

    def reject(self, reason: Reason, detail: str, payload: bytes, device: str | None = None) -> Rejected:
        return Rejected(reason, detail[:_MAX_DETAIL], payload, self.source, self.topic, self.device or device)


def topic_of(reading: Reading) -> str:
    """The topic that a reading of this device is published to."""
    return f"fleet/{reading.kind}/{reading.device}/telemetry"


def encode(reading: Reading) -> bytes:
    """One reading as the contract's JSON object."""
    return to_json(PAYLOADS[reading.kind].fields(reading))


def encode_many(readings: Iterable[Reading]) -> bytes:
    """Readings as one JSON array: a device's backlog."""
    return b"[" + b",".join(encode(reading) for reading in readings) + b"]"


def decode_message(topic: str, payload: bytes, times: AcceptedTimes) -> list[Reading | Rejected]:
    """The readings of one MQTT message, all of the topic's device. Never raises; never empty."""
    try:
        return _decode_message(topic, payload, times)
    except Exception as error:
        detail = f"cannot be decoded: {type(error).__name__}: {error}"[:_MAX_DETAIL]
        return [Rejected("not_a_reading", detail, payload, "mqtt", topic)]


def _decode_message(topic: str, payload: bytes, times: AcceptedTimes) -> list[Reading | Rejected]:
    contract = _OF_TOPIC.get(topic[:7])
    if contract is None or payload[:1] != b"{":
        return _decode_other(topic, payload, times)
    try:
        reading = contract.from_json(payload)
    except ValidationError as error:
        if "recursion limit" in str(error):  # of the fast parser only
            return _decode_other(topic, payload, times)
        origin = _origin(topic)
        return [_invalid(origin, error, payload) if origin else _bad_topic(topic, payload)]
    plain = not reading.extra and times.earliest <= reading.timestamp <= times.latest
    if plain and topic == f"fleet/{contract.kind}/{reading[0]}/telemetry":
        return [reading]
    origin = _origin(topic)
    return [_check(origin, reading, payload, times) if origin else _bad_topic(topic, payload)]


def _origin(topic: str) -> _Origin | None:
    """Where a message comes from: the topic's device. None when no device can be read from the topic."""
    levels = topic.split("/")
    if len(levels) != 4 or levels[1] not in PAYLOADS or not is_device_id(levels[2]):
        return None
    return _Origin("mqtt", topic, levels[2])


def _bad_topic(topic: str, payload: bytes) -> Rejected:
    return Rejected("bad_topic", "no device can be read from the topic", payload, "mqtt", topic)


def _decode_other(topic: str, payload: bytes, times: AcceptedTimes) -> list[Reading | Rejected]:
    """A payload that is not simply an object: an array, white space first, deep nesting, or no reading at all."""
    origin = _origin(topic)
    if origin is None:
        return [_bad_topic(topic, payload)]
    try:
        document = loads(payload)
    except ValueError as error:
        return [origin.reject("not_json", str(error), payload)]
    elements = document if isinstance(document, list) else [document]
    kind = cast(Kind, topic.split("/")[1])
    refusal = _refuse_length(origin, elements, MAX_READINGS_PER_MESSAGE, payload)
    return [refusal] if refusal else [_decode_element(origin, element, times, kind) for element in elements]


def decode_body(body: bytes, times: AcceptedTimes, ndjson: bool = False) -> list[Reading | Rejected]:
    """The readings of an HTTP body: one object, an array, or a JSON object a line. Never empty.

    Raises `NotJson` when the body is not JSON at all (a broken NDJSON line is a rejected item of its own), and
    `TooManyReadings` before it has decoded any: eight megabytes of commas must not cost millions of rejections.
    """
    origin = _Origin("http")
    if ndjson:
        lines = [line[0].rstrip() for line in islice(_lines(body), MAX_READINGS_PER_BODY + 1)]
        _refuse_crowd(len(lines))
        return [_decode_line(origin, line, times) for line in lines] or [_empty(origin, body)]
    try:
        document = loads(body)
    except ValueError as error:
        raise NotJson(str(error)) from None
    elements = document if isinstance(document, list) else [document]
    _refuse_crowd(len(elements))
    return [_decode_element(origin, element, times) for element in elements] or [_empty(origin, body)]


def _refuse_crowd(readings: int) -> None:
    if readings > MAX_READINGS_PER_BODY:
        raise TooManyReadings(f"more than {MAX_READINGS_PER_BODY} readings")


def _decode_line(origin: _Origin, line: bytes, times: AcceptedTimes) -> Reading | Rejected:
    """One line; a reading that is as it should be needs no document in between."""
    contract = VEHICLE if b'"vehicleId"' in line else METER
    try:
        reading = contract.from_json(line)
    except ValidationError:
        return _decode_odd_line(origin, line, times)
    if reading.extra or not _in_time(reading, times):
        return _decode_odd_line(origin, line, times)
    return reading


def _decode_odd_line(origin: _Origin, line: bytes, times: AcceptedTimes) -> Reading | Rejected:
    try:
        element = loads(line)
    except ValueError as error:
        return origin.reject("not_json", str(error), line)
    return _decode_element(origin, element, times)


def _empty(origin: _Origin, payload: bytes) -> Rejected:
    return origin.reject("not_a_reading", "there is no reading in it", payload)


def _refuse_length(origin: _Origin, elements: Sequence[Any], most: int, payload: bytes) -> Rejected | None:
    if not elements:
        return _empty(origin, payload)
    if len(elements) > most:
        return origin.reject("too_many_readings", f"{len(elements)} readings; at most {most}", payload)
    return None


def _decode_element(
    origin: _Origin, element: Any, times: AcceptedTimes, kind: Kind | None = None
) -> Reading | Rejected:
    """One parsed JSON value; without `kind` its shape says which it is."""
    if not isinstance(element, dict):
        return origin.reject("not_a_reading", "a reading is a JSON object", dump(element))
    kind = kind or _kind_of(element)
    if kind is None:
        return origin.reject("not_a_reading", "either vehicleId or meterId is required", dump(element))
    try:
        reading: Reading = PAYLOADS[kind].from_fields(element)
    except ValidationError as error:
        return _invalid(origin, error, dump(element), _claimed_device(element))
    if not reading.extra and origin.topic is None and _in_time(reading, times):
        return reading
    return _check(origin, reading, element, times)


def _kind_of(element: dict[str, Any]) -> Kind | None:
    vehicle, meter = "vehicleId" in element, "meterId" in element
    if vehicle == meter:
        return None
    return "vehicle" if vehicle else "meter"


def _claimed_device(element: dict[str, Any]) -> str | None:
    claimed = element.get("vehicleId", element.get("meterId"))
    return claimed if isinstance(claimed, str) and is_device_id(claimed) else None


def _check(
    origin: _Origin, reading: Reading, came_as: bytes | dict[str, Any], times: AcceptedTimes
) -> Reading | Rejected:
    """What the contract's limits alone cannot say: the topic's device, the time, and whether the extras can be kept."""
    reason = _refusal(origin, reading, times)
    if reason is None:
        return reading
    return origin.reject(*reason, came_as if isinstance(came_as, bytes) else dump(came_as), reading.device)


def _refusal(origin: _Origin, reading: Reading, times: AcceptedTimes) -> tuple[Reason, str] | None:
    if origin.device is not None and reading.device != origin.device:
        return "device_mismatch", f"{reading.kind}Id: {reading.device} is not the topic's {origin.device}"
    if reading.extra and _OTHER_ID[reading.kind] in reading.extra:
        return "not_a_reading", "vehicleId and meterId: only one of them is allowed"
    if not _in_time(reading, times):
        return "timestamp_out_of_range", _time_detail(reading, times)
    if reading.extra and not _storable(reading.extra):
        return "invalid_field", "; ".join(_unstorable(reading.extra))
    return None


def _storable(extra: dict[str, Any]) -> bool:
    try:
        text = jsonb_text(extra)
    except (ValueError, RecursionError):
        return False
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    return not (may_be_deep and deeper_than(MAX_DEPTH + 1, extra))


def _unstorable(extra: dict[str, Any]) -> Iterator[str]:
    for name, value in extra.items():
        try:
            if deeper_than(MAX_DEPTH, value):
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
            jsonb_text({name: value})
        except ValueError as error:
            yield f"{ascii(name)[1:-1]}: {error}"


def _in_time(reading: Reading, times: AcceptedTimes) -> bool:
    return times.earliest <= reading.timestamp <= times.latest


def _time_detail(reading: Reading, times: AcceptedTimes) -> str:
    at = format_timestamp(reading.timestamp)
    if reading.timestamp > times.now:
        return f"timestamp: {at} is more than {times.latest - times.now} in the future"
    return f"timestamp: {at} is more than {times.now - times.earliest} in the past"


def _invalid(origin: _Origin, error: ValidationError, payload: bytes, device: str | None = None) -> Rejected:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    reason: Reason = "not_json" if errors[0]["type"] == "json_invalid" else "invalid_field"
    detail = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in errors[:8])
    return origin.reject(reason, detail, payload, device)
