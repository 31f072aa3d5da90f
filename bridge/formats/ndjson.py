"""The format NDJSON: one JSON object per line. Pure."""

import re
from itertools import islice

from bridge.delivery import Item
from bridge.formats.contract_json import decode_text
from bridge.formats.document import BLANK
from bridge.formats.element import bad_topic, origin_of
from bridge.formats.port import AcceptedTimes, Format

_lines = re.compile(rb"[^\s\0][^\r\n]*").finditer


def decode(payload: bytes, topic: str | None, times: AcceptedTimes, most: int) -> list[Item]:
    """See `port.Decode`."""
    origin = origin_of("ndjson", topic)
    if origin is None:
        return [bad_topic("ndjson", topic, payload)]
    lines = [line[0].rstrip(BLANK) for line in islice(_lines(payload), most + 1)]
    if len(lines) > most:
        return [origin.too_many(payload, most)]
    return [decode_text(origin, line, times) for line in lines] or [origin.empty(payload)]


FORMAT = Format("ndjson", decode, ("application/x-ndjson", "application/ndjson"), "A reading per line.")
