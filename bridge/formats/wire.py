"""Topic and bytes to readings and back. Pure: no clock, no socket, no await.

Every byte string decodes to at least one item: a reading, or the rejection that names the field and the reason.
In an array each element stands for itself, even where the array is no JSON as a whole. The formats are those of
DESIGN "Contract of a reading" (docs/devices.md, docs/api.md).
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from bridge.contract import KIND_OF, KINDS, Kind
from bridge.delivery import Item
from bridge.errors import Format, NotJson, Reason, Rejected, Source, TooManyReadings
from bridge.formats import extra as unknown
from bridge.formats.document import BLANK, dump, loads
from bridge.formats.elements import begins_as_array, cut
from bridge.formats.payload import PAYLOADS, Payload
from bridge.reading import FieldWarning, Flagged, Reading, format_timestamp, is_device_id

MAX_READINGS_PER_MESSAGE = 1_000
MAX_READINGS_PER_BODY = 10_000
_MAX_DETAIL = 500
_HEAD_BYTES = 200  # where an array's first element names its device
_lines = re.compile(rb"[^\s\0][^\r\n]*").finditer
_TRUNCATED = FieldWarning("truncated", "", "the array was cut off after this element")


def _distinct_length(names: list[str]) -> int:
    """So many first characters tell the names apart."""
    return next(n for n in range(1, 100) if len({name[:n] for name in names}) == len(names))


_PREFIX = _distinct_length([kind.topic("") for kind in KINDS])
_OF_TOPIC: dict[str, Payload] = {kind.topic("")[:_PREFIX]: PAYLOADS[kind.name] for kind in KINDS}
"""A guess by how the topic begins; the whole topic is compared when the reading is known."""
_BY_ID_FIELD = [(kind.id_field, f'"{kind.id_field}"'.encode(), PAYLOADS[kind.name]) for kind in KINDS]
_EVERY_ID_FIELD = frozenset(kind.id_field for kind in KINDS)
_ID_FIELDS = " or ".join(kind.id_field for kind in KINDS)
_ONE_ID_FIELD = f"{_ID_FIELDS}: only one of them is allowed"


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
    """Where bytes come from, and what they must be about: over MQTT the topic's device."""

    source: Source
    format: Format = "json"
    topic: str | None = None
    device: str | None = None
    contract: Payload | None = None

    def reject(self, reason: Reason, detail: str, payload: bytes, device: str | None = None) -> Rejected:
        device = self.device or device
        return Rejected(reason, detail[:_MAX_DETAIL], payload, self.source, self.topic, device, self.format)


def topic_of(reading: Reading) -> str:
    """The topic that a reading of this device is published to."""
    return reading.kind.topic(reading.device)


def encode(reading: Reading) -> bytes:
    """One reading as the contract's JSON object."""
    return to_json(PAYLOADS[reading.kind.name].fields(reading))


def encode_many(readings: Iterable[Reading]) -> bytes:
    """Readings as one JSON array: a device's backlog."""
    return b"[" + b",".join(encode(reading) for reading in readings) + b"]"


def decode_message(
    topic: str, payload: bytes, times: AcceptedTimes, most: int = MAX_READINGS_PER_MESSAGE
) -> list[Item]:
    """The readings of one MQTT message, all of the topic's device. Never raises; never empty."""
    try:
        contract, reading = _OF_TOPIC.get(topic[:_PREFIX]), None
        if contract is not None and payload[:1] == b"{":
            try:
                reading = contract.from_json(payload)
            except ValidationError:
                pass
            else:
                in_time = times.earliest <= reading[1] <= times.latest
                if in_time and reading[-1] is None and topic == f"{contract.topic}{reading[0]}/telemetry":
                    return [reading]
        return _decode_odd_message(topic, payload, times, most, reading)
    except Exception as error:
        detail = f"cannot be decoded: {type(error).__name__}: {error}"[:_MAX_DETAIL]
        return [Rejected("not_a_reading", detail, payload, "mqtt", topic)]


def _decode_odd_message(
    topic: str, payload: bytes, times: AcceptedTimes, most: int, reading: Reading | None
) -> list[Item]:
    """A message that is not simply a good reading of the topic's device; `reading` is what it may be all the same."""
    origin = _origin(topic)
    if origin is None:
        return [Rejected("bad_topic", "no device can be read from the topic", payload, "mqtt", topic)]
    if reading is not None and origin.contract is not None and reading.kind is origin.contract.kind:
        return [_judge(origin, reading, (), times, payload)]
    return _decode_document(origin, payload, times, most)


def _read(contract: Payload | None, text: bytes) -> Reading | None:
    """The text as a reading when it is as it should be, without a document in between; else None."""
    try:
        return None if contract is None else contract.from_json(text)
    except ValidationError:
        return None


def _origin(topic: str) -> _Origin | None:
    """Where a message comes from: the topic's device. None when no device can be read from the topic."""
    levels = topic.split("/")
    if len(levels) != 4 or levels[1] not in KIND_OF or not is_device_id(levels[2]):
        return None
    return _Origin("mqtt", "json", topic, levels[2], PAYLOADS[levels[1]])


def _decode_document(origin: _Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item]:
    """A message or body: an object, an array, or neither."""
    if payload[:1] == b"{":
        return [_decode_text(origin, payload, times)]
    if payload[:1] == b"[" and (items := _decode_whole(origin, payload, times, most)) is not None:
        return items
    try:
        document = loads(payload)
    except ValueError as error:
        if begins_as_array(payload):
            return _decode_cut(origin, payload, times, most)
        return [origin.reject("not_json", str(error), payload)]
    if not isinstance(document, list):
        return [_decode_element(origin, document, times, payload)]
    if len(document) > most:
        return [_too_many(origin, payload, most)]
    return [_decode_element(origin, element, times) for element in document] or [_empty(origin, payload)]


def _decode_whole(origin: _Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item] | None:
    """An array in which every element is a reading as it should be, all of one kind; None for any other array."""
    contract = origin.contract or _contract_in(payload[:_HEAD_BYTES])
    try:
        readings = [] if contract is None else contract.all_from_json(payload)
    except ValidationError:
        return None
    if not readings or any(_refusal(origin, reading, times) for reading in readings):
        return None
    if len(readings) > most:
        return [_too_many(origin, payload, most)]
    return [reading if reading[-1] is None else _judge(origin, reading, (), times, b"") for reading in readings]


def _decode_cut(origin: _Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item]:
    """An array that is no JSON as a whole: each of its elements is decoded from its own bytes."""
    elements = cut(payload, most)
    if len(elements.texts) > most:
        return [_too_many(origin, payload, most)]
    items = [_decode_text(origin, text, times) for text in elements.texts]
    if not elements.is_closed and items and not isinstance(items[-1], Rejected):
        items[-1] = _flagged(items[-1], (_TRUNCATED,))
    return items or [_empty(origin, payload)]


def decode_body(
    body: bytes, times: AcceptedTimes, ndjson: bool = False, most: int = MAX_READINGS_PER_BODY
) -> list[Item]:
    """The readings of an HTTP body: one object, an array, or a JSON object a line. Never empty.

    Raises `NotJson` when the body is neither JSON nor the beginning of an array (a broken NDJSON line, or element of
    an array, is a rejected item of its own), and `TooManyReadings` before it has decoded any: eight megabytes of
    commas must not cost millions of rejections.
    """
    origin = _Origin("http", "ndjson" if ndjson else "json")
    items = _decode_lines(origin, body, times, most) if ndjson else _decode_document(origin, body, times, most)
    if len(items) == 1 and isinstance(items[0], Rejected):
        if items[0].reason == "too_many_readings":
            raise TooManyReadings(f"more than {most} readings")
        if items[0].reason == "not_json" and not ndjson and not begins_as_array(body):
            raise NotJson(items[0].detail)
    return items


def _decode_lines(origin: _Origin, body: bytes, times: AcceptedTimes, most: int) -> list[Item]:
    lines = [line[0].rstrip(BLANK) for line in islice(_lines(body), most + 1)]
    if len(lines) > most:
        return [_too_many(origin, body, most)]
    return [_decode_text(origin, line, times) for line in lines] or [_empty(origin, body)]


def _decode_text(origin: _Origin, text: bytes, times: AcceptedTimes) -> Item:
    """One element from its bytes."""
    reading = _read(origin.contract or _contract_in(text), text)
    if reading is not None:
        # As in `_decode_element`: most are as they should be.
        if reading[-1] is None and origin.device is None and times.earliest <= reading[1] <= times.latest:
            return reading
        return _judge(origin, reading, (), times, text)
    try:
        element = loads(text)
    except ValueError as error:
        return origin.reject("not_json", str(error), text)
    return _decode_element(origin, element, times, text)


def _decode_element(origin: _Origin, element: Any, times: AcceptedTimes, came_as: bytes | None = None) -> Item:
    """One parsed JSON value; without a topic its shape says of which kind it is."""
    if not isinstance(element, dict):
        return origin.reject("not_a_reading", "a reading is a JSON object", came_as or dump(element))
    contract = origin.contract or _contract_of(element)
    if contract is None:
        detail = f"either {_ID_FIELDS} is required" if _EVERY_ID_FIELD.isdisjoint(element) else _ONE_ID_FIELD
        return origin.reject("not_a_reading", detail, came_as or dump(element))
    try:
        reading = contract.from_fields(element)
    except ValidationError:
        return _decode_odd(origin, contract, element, times, came_as)
    # Most are as they should be, and a call of `_judge` for each would cost an array a tenth of its time.
    if reading[-1] is None and origin.device is None and times.earliest <= reading[1] <= times.latest:
        return reading
    return _judge(origin, reading, (), times, came_as or element)


def _decode_odd(
    origin: _Origin, contract: Payload, element: dict[str, Any], times: AcceptedTimes, came_as: bytes | None
) -> Item:
    """An object that is not as the contract has it: without its nulls and its bad gauges it may be."""
    try:
        flagged = contract.leniently(element)
    except ValidationError as error:
        device = _claimed_device(element, contract.kind)
        return origin.reject("invalid_field", _detail(error), came_as or dump(element), device)
    return _judge(origin, flagged.reading, flagged.warnings, times, came_as or element)


def _judge(
    origin: _Origin,
    reading: Reading,
    warnings: tuple[FieldWarning, ...],
    times: AcceptedTimes,
    came_as: bytes | dict[str, Any],
) -> Item:
    """What the contract's limits alone cannot say: the topic's device, the time, and whether all can be kept."""
    in_time = times.earliest <= reading[1] <= times.latest
    if in_time and reading[-1] is None and not warnings and (origin.device is None or origin.device == reading[0]):
        return reading
    if refusal := _refusal(origin, reading, times):
        return origin.reject(*refusal, came_as if isinstance(came_as, bytes) else dump(came_as), reading.device)
    if reading.extra:
        kept, more = unknown.bounded(reading.extra)
        if more or kept is not reading.extra:
            warnings += tuple(more)
            reading = reading.with_extra(kept)
    return _flagged(reading, warnings) if warnings else reading


def _flagged(item: Reading | Flagged, warnings: tuple[FieldWarning, ...]) -> Flagged:
    if isinstance(item, Flagged):
        return Flagged(item.reading, item.warnings + warnings)
    return Flagged(item, warnings)


def _contract_in(text: bytes) -> Payload | None:
    """A guess: that of the one kind whose id field the text mentions. None when there is none, or more than one."""
    found = None
    for _, name, contract in _BY_ID_FIELD:
        if name in text:
            if found is not None:
                return None
            found = contract
    return found


def _contract_of(element: dict[str, Any]) -> Payload | None:
    """That of the one kind whose id is in the object; None when there is none, or more than one."""
    found = None
    for name, _, contract in _BY_ID_FIELD:
        if name in element:
            if found is not None:
                return None
            found = contract
    return found


def _claimed_device(element: dict[str, Any], kind: Kind) -> str | None:
    claimed = element.get(kind.id_field)
    return claimed if isinstance(claimed, str) and is_device_id(claimed) else None


def _refusal(origin: _Origin, reading: Reading, times: AcceptedTimes) -> tuple[Reason, str] | None:
    """What the contract's limits alone cannot say: the topic's device, the kind, and the time."""
    if origin.device is not None and reading.device != origin.device:
        return "device_mismatch", f"{reading.kind.id_field}: {reading.device} is not the topic's {origin.device}"
    if reading.extra and not _EVERY_ID_FIELD.isdisjoint(reading.extra):
        return "not_a_reading", _ONE_ID_FIELD
    if not times.earliest <= reading.timestamp <= times.latest:
        return "timestamp_out_of_range", _time_detail(reading, times)
    return None


def _time_detail(reading: Reading, times: AcceptedTimes) -> str:
    at = format_timestamp(reading.timestamp)
    if reading.timestamp > times.now:
        return f"timestamp: {at} is more than {times.latest - times.now} in the future"
    return f"timestamp: {at} is more than {times.now - times.earliest} in the past"


def _detail(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in errors[:8])


def _empty(origin: _Origin, payload: bytes) -> Rejected:
    return origin.reject("not_a_reading", "there is no reading in it", payload)


def _too_many(origin: _Origin, payload: bytes, most: int) -> Rejected:
    return origin.reject("too_many_readings", f"more than {most} readings in a message", payload)
