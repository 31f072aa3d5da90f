"""The default format: one JSON object, or an array of objects (docs/devices.md, docs/api.md). Pure.

The elements of an array are decoded independently, even if the array is not valid JSON as a whole.
"""

from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import to_json

from bridge.contract import KINDS
from bridge.delivery import Item
from bridge.errors import Rejected
from bridge.formats.document import loads
from bridge.formats.element import Origin, bad_topic, decode_element, flagged, judge, origin_of, refusal
from bridge.formats.elements import begins_as_array, cut
from bridge.formats.payload import PAYLOADS, Payload
from bridge.formats.port import AcceptedTimes, Format
from bridge.reading import FieldWarning, Reading

_HEAD_BYTES = 200  # contain the id field of an array's first element
_TRUNCATED = FieldWarning("truncated", "", "the array was cut off after this element")


def _distinct_length(names: list[str]) -> int:
    """The number of first characters that distinguish the names."""
    return next(n for n in range(1, 100) if len({name[:n] for name in names}) == len(names))


_PREFIX = _distinct_length([kind.topic("") for kind in KINDS])
_OF_TOPIC: dict[str, Payload] = {kind.topic("")[:_PREFIX]: PAYLOADS[kind.name] for kind in KINDS}
"""Guess of the kind by the beginning of the topic; the whole topic is compared after decoding."""
_BY_ID_FIELD = [(f'"{kind.id_field}"'.encode(), PAYLOADS[kind.name]) for kind in KINDS]


def topic_of(reading: Reading) -> str:
    """The topic to which the device publishes the reading."""
    return reading.kind.topic(reading.device)


def encode(reading: Reading) -> bytes:
    """Encode one reading as a JSON object."""
    return to_json(PAYLOADS[reading.kind.name].fields(reading))


def encode_many(readings: Iterable[Reading]) -> bytes:
    """Encode readings as one JSON array, as in a device's backlog."""
    return b"[" + b",".join(encode(reading) for reading in readings) + b"]"


def decode(payload: bytes, topic: str | None, times: AcceptedTimes, most: int) -> list[Item]:
    """See `port.Decode`."""
    reading = None
    if topic is not None and payload[:1] == b"{" and (contract := _OF_TOPIC.get(topic[:_PREFIX])) is not None:
        try:
            reading = contract.from_json(payload)
        except ValidationError:
            pass
        else:
            in_time = times.earliest <= reading[1] <= times.latest
            if in_time and reading[-1] is None and topic == f"{contract.topic}{reading[0]}/telemetry":
                return [reading]
    origin = origin_of("json", topic)
    if origin is None:
        return [bad_topic("json", topic, payload)]
    if reading is not None and origin.contract is not None and reading.kind is origin.contract.kind:
        return [judge(origin, reading, (), times, payload)]
    return _decode_document(origin, payload, times, most)


FORMAT = Format("json", decode, ("application/json",), "A reading, or an array of readings.")


def _decode_document(origin: Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item]:
    """Decode a message or body: an object, an array, or neither."""
    if payload[:1] == b"{":
        return [decode_text(origin, payload, times)]
    if payload[:1] == b"[" and (items := _decode_whole(origin, payload, times, most)) is not None:
        return items
    try:
        document = loads(payload)
    except ValueError as error:
        if begins_as_array(payload):
            return _decode_cut(origin, payload, times, most)
        return [origin.reject("not_json", str(error), payload)]
    if not isinstance(document, list):
        return [decode_element(origin, document, times, payload)]
    if len(document) > most:
        return [origin.too_many(payload, most)]
    return [decode_element(origin, element, times) for element in document] or [origin.empty(payload)]


def _decode_whole(origin: Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item] | None:
    """Decode an array of plain readings of one kind; None for any other array."""
    contract = origin.contract or _contract_in(payload[:_HEAD_BYTES])
    try:
        readings = [] if contract is None else contract.all_from_json(payload)
    except ValidationError:
        return None
    if not readings or any(refusal(origin, reading, times) for reading in readings):
        return None
    if len(readings) > most:
        return [origin.too_many(payload, most)]
    return [reading if reading[-1] is None else judge(origin, reading, (), times, b"") for reading in readings]


def _decode_cut(origin: Origin, payload: bytes, times: AcceptedTimes, most: int) -> list[Item]:
    """Decode an array that is not valid JSON as a whole: each element is decoded from its own bytes."""
    elements = cut(payload, most)
    if len(elements.texts) > most:
        return [origin.too_many(payload, most)]
    items = [decode_text(origin, text, times) for text in elements.texts]
    if not elements.is_closed and items and not isinstance(items[-1], Rejected):
        items[-1] = flagged(items[-1], (_TRUNCATED,))
    return items or [origin.empty(payload)]


def decode_text(origin: Origin, text: bytes, times: AcceptedTimes) -> Item:
    """Decode one element from its own bytes."""
    contract = origin.contract or _contract_in(text)
    try:
        reading = None if contract is None else contract.from_json(text)
    except ValidationError:
        reading = None
    if reading is not None:
        # As in `decode_element`: most readings have no unknown fields.
        if reading[-1] is None and origin.device is None and times.earliest <= reading[1] <= times.latest:
            return reading
        return judge(origin, reading, (), times, text)
    try:
        element = loads(text)
    except ValueError as error:
        return origin.reject("not_json", str(error), text)
    return decode_element(origin, element, times, text)


def _contract_in(text: bytes) -> Payload | None:
    """Guess of the kind by the id field in the text. None when there is none, or more than one."""
    found = None
    for name, contract in _BY_ID_FIELD:
        if name in text:
            if found is not None:
                return None
            found = contract
    return found
