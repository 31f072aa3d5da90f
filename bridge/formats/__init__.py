"""Decodes bytes to readings and rejects. Pure: no clock, no socket, no await.

A format is a module with a `FORMAT`, listed in `FORMATS`. Every byte string decodes to at least one item: a reading,
or a rejection that names the field and the reason.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from bridge.delivery import Item
from bridge.errors import NotJson, Rejected, TooManyReadings
from bridge.formats import contract_json, ndjson
from bridge.formats.bounds import SMALL, excess, excess_of_body
from bridge.formats.element import bad_topic, origin_of
from bridge.formats.elements import begins_as_array
from bridge.formats.port import MAX_READINGS_PER_BODY, MAX_READINGS_PER_MESSAGE, AcceptedTimes, Format

FORMATS: tuple[Format, ...] = (
    contract_json.FORMAT,
    ndjson.FORMAT,
)
_DEFAULT = contract_json.FORMAT
_BY_NAME = {format_.name: format_ for format_ in FORMATS}
_BY_MEDIA_TYPE = {media_type: format_ for format_ in FORMATS for media_type in format_.content_types}


def _matcher(filters: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the topics that match one of the MQTT topic filters."""
    signs = {"+": "[^/]*", "#": ".*"}
    levels = ([signs.get(level) or re.escape(level) for level in filter_.split("/")] for filter_ in filters)
    return re.compile("|".join("/".join(words).replace("/.*", "(?:/.*)?") for words in levels))


_BY_TOPIC = [(_matcher(format_.topics).fullmatch, format_) for format_ in FORMATS if format_.topics]


def named(name: str) -> Format | None:
    """The format of this name; None when this version does not have it."""
    return _BY_NAME.get(name)


@lru_cache(maxsize=64)  # a fleet uses few content types
def of_content_type(content_type: str) -> Format | None:
    """The format of a content type, JSON for an empty one; None when it is unknown or not in UTF-8."""
    media_type, _, parameters = content_type.partition(";")
    given = parameters.replace(" ", "").replace('"', "").lower().split(";")
    if any(parameter not in ("", "charset=utf-8") for parameter in given):
        return None
    return _BY_MEDIA_TYPE.get(media_type.strip().lower()) if media_type.strip() else _DEFAULT


def of_message(topic: str, content_type: str | None) -> Format:
    """The format of an MQTT message: that of a known content type, else of the topic, else JSON."""
    if content_type and (format_ := of_content_type(content_type)) is not None:
        return format_
    return next((format_ for matches, format_ in _BY_TOPIC if matches(topic)), _DEFAULT)


def decode(format_: Format, payload: bytes, topic: str | None, times: AcceptedTimes, most: int) -> list[Item]:
    """The items of a message or body. Never raises; never empty."""
    if len(payload) > SMALL:
        detail = excess_of_body(payload, most) if topic is None else excess(payload, most)
        if detail is not None:
            return [_too_large(format_, payload, topic, detail)]
    try:
        return format_.decode(payload, topic, times, most)
    except Exception as error:
        detail = f"cannot be decoded: {type(error).__name__}: {error}"[:500]
        return [Rejected("not_a_reading", detail, payload, topic, format=format_.name)]


def decode_message(
    topic: str,
    payload: bytes,
    times: AcceptedTimes,
    content_type: str | None = None,
    most: int = MAX_READINGS_PER_MESSAGE,
) -> list[Item]:
    """The items of one MQTT message. Never raises; never empty."""
    format_ = of_message(topic, content_type) if content_type or _BY_TOPIC else _DEFAULT
    return decode(format_, payload, topic, times, most)


def _too_large(format_: Format, payload: bytes, topic: str | None, detail: str) -> Rejected:
    origin = origin_of(format_.name, topic)
    if origin is None:
        return bad_topic(format_.name, topic, payload)
    whole = "body" if topic is None else "message"
    return origin.reject("too_large", f"the {whole} has {detail}", payload)


def decode_body(
    body: bytes, times: AcceptedTimes, format_: Format = _DEFAULT, most: int = MAX_READINGS_PER_BODY
) -> list[Item]:
    """The items of an HTTP body; never empty.

    Raises `NotJson` when a JSON body is neither JSON nor the beginning of an array (an invalid element or line is a
    rejected item), and `TooManyReadings` before any reading is decoded, also for a body that is `too_large`: eight
    megabytes of commas must not become millions of rejects.
    """
    items = decode(format_, body, None, times, most)
    if len(items) == 1 and isinstance(items[0], Rejected):
        if items[0].reason == "too_many_readings":
            raise TooManyReadings(f"more than {most} readings")
        if items[0].reason == "too_large":
            raise TooManyReadings(items[0].detail)
        if items[0].reason == "not_json" and format_ is _DEFAULT and not begins_as_array(body):
            raise NotJson(items[0].detail)
    return items
