"""Topic and bytes to readings and back. Pure: no clock, no socket, no await.

Every byte string decodes to at least one item: a reading, or the rejection that names the field and the reason.
In an array each element stands for itself. The formats are those of DESIGN "Contracts" (docs/devices.md, docs/api.md).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any, cast

from pydantic import ValidationError

from bridge.document import deeper_than, dump, loads
from bridge.errors import NotJson, Reason, Rejected, Source, TooManyReadings
from bridge.reading import Kind, MeterReading, Reading, VehicleReading, format_timestamp, is_device_id, jsonb_text

MAX_READINGS_PER_MESSAGE = 1_000
MAX_READINGS_PER_BODY = 10_000
MAX_DEPTH = 100
"""Levels of lists and objects in an unknown field: far from where any parser or database gives up."""
_MAX_DETAIL = 500
_lines = re.compile(rb"\S[^\r\n]*").finditer

_MODELS: dict[str, type[VehicleReading] | type[MeterReading]] = {
    "vehicle": VehicleReading,
    "meter": MeterReading,
}
_OTHER_ID = {"vehicle": "meterId", "meter": "vehicleId"}


@dataclass(frozen=True, slots=True)
class AcceptedWindow:
    """How far a device's clock may be from ours. Outside, one reading could freeze a live row for ever."""

    past: timedelta
    future: timedelta


@dataclass(frozen=True, slots=True)
class _Origin:
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
    return reading.model_dump_json(by_alias=True).encode()


def encode_many(readings: Iterable[Reading]) -> bytes:
    """Readings as one JSON array: a device's backlog."""
    return b"[" + b",".join(encode(reading) for reading in readings) + b"]"


def decode_message(topic: str, payload: bytes, now: datetime, window: AcceptedWindow) -> list[Reading | Rejected]:
    """The readings of one MQTT message, all of the topic's device. Never raises; never empty."""
    try:
        return _decode_message(topic, payload, now, window)
    except Exception as error:
        detail = f"cannot be decoded: {type(error).__name__}: {error}"[:_MAX_DETAIL]
        return [Rejected("not_a_reading", detail, payload, "mqtt", topic)]


def _decode_message(topic: str, payload: bytes, now: datetime, window: AcceptedWindow) -> list[Reading | Rejected]:
    sender = _sender(topic)
    if sender is None:
        return [Rejected("bad_topic", "no device can be read from the topic", payload, "mqtt", topic)]
    kind, device, id_of = sender
    if payload[:1] != b"{":
        return _decode_other(_Origin("mqtt", topic, device), kind, payload, now, window)
    try:
        reading = _MODELS[kind].__pydantic_validator__.validate_json(payload, by_alias=True, by_name=False)
    except ValidationError as error:
        if "recursion limit" in str(error):  # of the fast parser only
            return _decode_other(_Origin("mqtt", topic, device), kind, payload, now, window)
        return [_invalid(_Origin("mqtt", topic, device), error, payload)]
    if id_of(reading) == device and not reading.__pydantic_extra__ and _in_window(reading, now, window):
        return [reading]
    return [_check(_Origin("mqtt", topic, device), kind, reading, payload, now, window)]


@lru_cache(maxsize=65_536)
def _sender(topic: str) -> tuple[Kind, str, Callable[[Any], str]] | None:
    """Kind and id of the topic's device, and how to read the id of a reading of that kind; None for a bad topic."""
    levels = topic.split("/")
    if len(levels) != 4 or levels[1] not in _MODELS or not is_device_id(levels[2]):
        return None
    kind = cast(Kind, levels[1])
    return kind, levels[2], attrgetter(f"{kind}_id")


def _decode_other(
    origin: _Origin, kind: str, payload: bytes, now: datetime, window: AcceptedWindow
) -> list[Reading | Rejected]:
    """A payload that is not simply an object: an array, white space first, deep nesting, or no reading at all."""
    try:
        document = loads(payload)
    except ValueError as error:
        return [origin.reject("not_json", str(error), payload)]
    elements = document if isinstance(document, list) else [document]
    refusal = _refuse_length(origin, elements, MAX_READINGS_PER_MESSAGE, payload)
    return [refusal] if refusal else [_decode_element(origin, e, now, window, kind) for e in elements]


def decode_body(body: bytes, now: datetime, window: AcceptedWindow, ndjson: bool = False) -> list[Reading | Rejected]:
    """The readings of an HTTP body: one object, an array, or a JSON object a line. Never empty.

    Raises `NotJson` when the body is not JSON at all (a broken NDJSON line is a rejected item of its own), and
    `TooManyReadings` before it has decoded any: eight megabytes of commas must not cost millions of rejections.
    """
    origin = _Origin("http")
    if ndjson:
        lines = [line[0].rstrip() for line in islice(_lines(body), MAX_READINGS_PER_BODY + 1)]
        _refuse_crowd(len(lines))
        return [_decode_line(origin, line, now, window) for line in lines] or [_empty(origin, body)]
    try:
        document = loads(body)
    except ValueError as error:
        raise NotJson(str(error)) from None
    elements = document if isinstance(document, list) else [document]
    _refuse_crowd(len(elements))
    return [_decode_element(origin, element, now, window) for element in elements] or [_empty(origin, body)]


def _refuse_crowd(readings: int) -> None:
    if readings > MAX_READINGS_PER_BODY:
        raise TooManyReadings(f"more than {MAX_READINGS_PER_BODY} readings")


def _decode_line(origin: _Origin, line: bytes, now: datetime, window: AcceptedWindow) -> Reading | Rejected:
    """One line; a reading that is as it should be needs no document in between."""
    model = VehicleReading if b'"vehicleId"' in line else MeterReading
    try:
        reading: Reading = model.__pydantic_validator__.validate_json(line, by_alias=True, by_name=False)
    except ValidationError:
        return _decode_odd_line(origin, line, now, window)
    if reading.__pydantic_extra__ or not _in_window(reading, now, window):
        return _decode_odd_line(origin, line, now, window)
    return reading


def _decode_odd_line(origin: _Origin, line: bytes, now: datetime, window: AcceptedWindow) -> Reading | Rejected:
    try:
        element = loads(line)
    except ValueError as error:
        return origin.reject("not_json", str(error), line)
    return _decode_element(origin, element, now, window)


def _empty(origin: _Origin, payload: bytes) -> Rejected:
    return origin.reject("not_a_reading", "there is no reading in it", payload)


def _refuse_length(origin: _Origin, elements: Sequence[Any], most: int, payload: bytes) -> Rejected | None:
    if not elements:
        return _empty(origin, payload)
    if len(elements) > most:
        return origin.reject("too_many_readings", f"{len(elements)} readings; at most {most}", payload)
    return None


def _decode_element(
    origin: _Origin, element: Any, now: datetime, window: AcceptedWindow, kind: str | None = None
) -> Reading | Rejected:
    """One parsed JSON value; without `kind` its shape says which it is."""
    if not isinstance(element, dict):
        return origin.reject("not_a_reading", "a reading is a JSON object", dump(element))
    kind = kind or _kind_of(element)
    if kind is None:
        return origin.reject("not_a_reading", "either vehicleId or meterId is required", dump(element))
    try:
        model = _MODELS[kind].__pydantic_validator__
        reading = model.validate_python(element, by_alias=True, by_name=False)
    except ValidationError as error:
        return _invalid(origin, error, dump(element), _claimed_device(element))
    if not reading.__pydantic_extra__ and origin.topic is None and _in_window(reading, now, window):
        return reading  # type: ignore[no-any-return]
    return _check(origin, kind, reading, element, now, window)


def _kind_of(element: dict[str, Any]) -> Kind | None:
    vehicle, meter = "vehicleId" in element, "meterId" in element
    if vehicle == meter:
        return None
    return "vehicle" if vehicle else "meter"


def _claimed_device(element: dict[str, Any]) -> str | None:
    claimed = element.get("vehicleId", element.get("meterId"))
    return claimed if isinstance(claimed, str) and is_device_id(claimed) else None


def _check(
    origin: _Origin,
    kind: str,
    reading: Reading,
    came_as: bytes | dict[str, Any],
    now: datetime,
    window: AcceptedWindow,
) -> Reading | Rejected:
    """What the model alone cannot know: the topic's device, the time, and whether the extras can be kept."""
    reason = _refusal(origin, kind, reading, now, window)
    if reason is None:
        return reading
    return origin.reject(*reason, came_as if isinstance(came_as, bytes) else dump(came_as), reading.device)


def _refusal(
    origin: _Origin, kind: str, reading: Reading, now: datetime, window: AcceptedWindow
) -> tuple[Reason, str] | None:
    if origin.device is not None and reading.device != origin.device:
        return "device_mismatch", f"{kind}Id: {reading.device} is not the topic's {origin.device}"
    extra = reading.__pydantic_extra__
    if extra and _OTHER_ID[kind] in extra:
        return "not_a_reading", "vehicleId and meterId: only one of them is allowed"
    if not _in_window(reading, now, window):
        return "timestamp_out_of_range", _time_detail(reading, now, window)
    if unstorable := list(_unstorable(extra or {})):
        return "invalid_field", "; ".join(unstorable)
    return None


def _unstorable(extra: dict[str, Any]) -> Iterator[str]:
    for name, value in extra.items():
        try:
            if deeper_than(MAX_DEPTH, value):
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
            jsonb_text({name: value})
        except ValueError as error:
            yield f"{ascii(name)[1:-1]}: {error}"


def _in_window(reading: Reading, now: datetime, window: AcceptedWindow) -> bool:
    return now - window.past <= reading.timestamp <= now + window.future


def _time_detail(reading: Reading, now: datetime, window: AcceptedWindow) -> str:
    if reading.timestamp > now:
        return f"timestamp: {format_timestamp(reading.timestamp)} is more than {window.future} in the future"
    return f"timestamp: {format_timestamp(reading.timestamp)} is more than {window.past} in the past"


def _invalid(origin: _Origin, error: ValidationError, payload: bytes, device: str | None = None) -> Rejected:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    types: dict[str, Reason] = {"json_invalid": "not_json", "model_type": "not_a_reading"}
    reason = types.get(errors[0]["type"], "invalid_field")
    detail = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in errors[:8])
    return origin.reject(reason, detail, payload, device)
