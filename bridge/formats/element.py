"""Decodes one reading from parsed fields: determines its kind, checks limits, time and the device of the topic. Pure.

All formats share this module: a format splits its bytes into elements and maps each to the names of the contract; here
the element becomes a reading, or a rejection that names the field and the reason.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bridge.contract import KIND_OF, KINDS, Kind
from bridge.delivery import Item
from bridge.errors import Reason, Rejected
from bridge.formats import extra as unknown
from bridge.formats.document import dump
from bridge.formats.payload import PAYLOADS, Payload
from bridge.formats.port import AcceptedTimes
from bridge.reading import (
    DEVICE_ID_RULE,
    NOT_UNICODE,
    TIMESTAMP_RULE,
    FieldWarning,
    Flagged,
    Reading,
    format_timestamp,
    is_device_id,
)

_MAX_DETAIL = 500
_REASONS = {"string_pattern_mismatch": DEVICE_ID_RULE, "string_unicode": NOT_UNICODE}
"""Instead of pydantic's messages; the device id is the only field with a pattern."""
_EVERY_ID_FIELD = frozenset(kind.id_field for kind in KINDS)
_ID_FIELDS = " or ".join(kind.id_field for kind in KINDS)
_ONE_ID_FIELD = f"{_ID_FIELDS}: only one of them is allowed"


class Origin(NamedTuple):
    """The format and topic of a message and, if the topic names a device, the device that its readings must have."""

    format: str
    topic: str | None = None
    device: str | None = None
    contract: Payload | None = None

    def reject(self, reason: Reason, detail: str, payload: bytes, device: str | None = None) -> Rejected:
        """Reject the payload, or one element of it."""
        return Rejected(reason, detail[:_MAX_DETAIL], payload, self.topic, self.device or device, self.format)

    def empty(self, payload: bytes) -> Rejected:
        """Reject a message without any element."""
        return self.reject("not_a_reading", "the message contains no reading", payload)

    def too_many(self, payload: bytes, most: int) -> Rejected:
        """Reject a message with more than `most` elements."""
        return self.reject("too_many_readings", f"more than {most} readings in a message", payload)


def origin_of(format_name: str, topic: str | None) -> Origin | None:
    """The origin of an HTTP body (no topic) or of a message on a telemetry topic; None for any other topic."""
    if topic is None:
        return Origin(format_name)
    levels = topic.split("/")
    if len(levels) != 4 or levels[1] not in KIND_OF or not is_device_id(levels[2]):
        return None
    return Origin(format_name, topic, levels[2], PAYLOADS[levels[1]])


def bad_topic(format_name: str, topic: str | None, payload: bytes) -> Rejected:
    """Reject a message whose topic does not name a device."""
    return Origin(format_name, topic).reject("bad_topic", "the topic does not name a device", payload)


def decode_element(origin: Origin, element: Any, times: AcceptedTimes, came_as: bytes | None = None) -> Item:
    """Decode a mapping of the contract's names to values; without a topic the id field determines the kind.

    `came_as` are the element's original bytes, stored with a rejection; without them the element is serialized as JSON.
    """
    if not isinstance(element, dict):
        return origin.reject("not_a_reading", "a reading must be an object with named fields", came_as or dump(element))
    contract = origin.contract or _contract_of(element)
    if contract is None:
        detail = _ONE_ID_FIELD
        if _EVERY_ID_FIELD.isdisjoint(element):
            other = next((name for name in element if unknown.meant(name) in _EVERY_ID_FIELD), None)
            detail = f"either {_ID_FIELDS} is required" + (f", not {ascii(other)[1:-1]}" if other else "")
        return origin.reject("not_a_reading", detail, came_as or dump(element))
    try:
        reading = contract.from_fields(element)
    except ValidationError:
        return _decode_leniently(origin, contract, element, times, came_as)
    # Most readings have no unknown fields, and a call of `judge` for each would take a tenth of an array's time.
    if reading[-1] is None and origin.device is None and times.earliest <= reading[1] <= times.latest:
        return reading
    return judge(origin, reading, (), times, came_as or element)


def _contract_of(element: dict[str, Any]) -> Payload | None:
    """The payload type of the kind whose id field is in the object; None when there is none, or more than one."""
    found = None
    for kind in KINDS:
        if kind.id_field in element:
            if found is not None:
                return None
            found = PAYLOADS[kind.name]
    return found


def _decode_leniently(
    origin: Origin, contract: Payload, element: dict[str, Any], times: AcceptedTimes, came_as: bytes | None
) -> Item:
    """Decode an object that violates the contract: without nulls and invalid gauges it may be a valid reading."""
    try:
        flagged = contract.leniently(element)
    except ValidationError as error:
        device = _claimed_device(element, contract.kind)
        return origin.reject("invalid_field", _detail(error), came_as or dump(element), device)
    return judge(origin, flagged.reading, flagged.warnings, times, came_as or element)


def judge(
    origin: Origin,
    reading: Reading,
    warnings: tuple[FieldWarning, ...],
    times: AcceptedTimes,
    came_as: bytes | dict[str, Any],
) -> Item:
    """Check what the limits of the contract do not cover: the device of the topic, the time, and the unknown fields."""
    in_time = times.earliest <= reading[1] <= times.latest
    if in_time and reading[-1] is None and not warnings and (origin.device is None or origin.device == reading[0]):
        return reading
    if refused := refusal(origin, reading, times):
        return origin.reject(*refused, came_as if isinstance(came_as, bytes) else dump(came_as), reading.device)
    if reading.extra:
        kept, more = unknown.bounded(reading.extra)
        if more or kept is not reading.extra:
            warnings += tuple(more)
            reading = reading.with_extra(kept)
        if reading.extra and (others := unknown.not_counted(reading.kind, reading.extra)):
            warnings += tuple(others)
    return flagged(reading, warnings) if warnings else reading


def flagged(item: Reading | Flagged, warnings: tuple[FieldWarning, ...]) -> Flagged:
    """The item with further warnings."""
    if isinstance(item, Flagged):
        return Flagged(item.reading, item.warnings + warnings)
    return Flagged(item, warnings)


def refusal(origin: Origin, reading: Reading, times: AcceptedTimes) -> tuple[Reason, str] | None:
    """Why a reading within the limits is rejected (device of the topic, kind, or time), or None."""
    if origin.device is not None and reading.device != origin.device:
        return (
            "device_mismatch",
            f"{reading.kind.id_field}: {reading.device} is not {origin.device}, the device of the topic",
        )
    if reading.extra and not _EVERY_ID_FIELD.isdisjoint(reading.extra):
        return "not_a_reading", _ONE_ID_FIELD
    if not times.earliest <= reading.timestamp <= times.latest:
        return "timestamp_out_of_range", _time_detail(reading, times)
    return None


def _time_detail(reading: Reading, times: AcceptedTimes) -> str:
    at = format_timestamp(reading.timestamp)
    if reading.timestamp > times.now:
        return f"timestamp: {at} is more than {(times.latest - times.now).total_seconds():.10g} s in the future"
    return f"timestamp: {at} is more than {(times.now - times.earliest) / timedelta(days=1):.10g} days in the past"


def _claimed_device(element: dict[str, Any], kind: Kind) -> str | None:
    claimed = element.get(kind.id_field)
    return claimed if isinstance(claimed, str) and is_device_id(claimed) else None


def _detail(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join([*map(str, e["loc"]), _reason(e)]) for e in errors[:8])


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "string_type" and error["loc"] == ("timestamp",):
        return f"{error['msg']}, {TIMESTAMP_RULE}"
    return _REASONS.get(error["type"], error["msg"])
