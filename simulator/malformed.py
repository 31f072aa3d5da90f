"""Many ways in which a message can fail to be a reading, each with the reason that it must be kept for."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.errors import Reason


class Malformation(NamedTuple):
    """Makes a broken message out of a good one.

    Without `anywhere` it is for a message of its own over MQTT: inside an array or an HTTP body it would break its
    neighbours, mean something else, or could not be told from another device's.
    """

    reason: Reason
    spoil: Callable[[bytes], bytes]
    anywhere: bool = True


def _changed(**changes: Any) -> Callable[[bytes], bytes]:
    """Fields set to other values, or added."""

    def spoil(payload: bytes) -> bytes:
        return json.dumps({**json.loads(payload), **changes}).encode()

    return spoil


def _without_timestamp(payload: bytes) -> bytes:
    return payload.split(b',"timestamp"')[0] + b"}"


def _naive(payload: bytes) -> bytes:
    return payload.replace(b'Z"}', b'"}')


def _text_number(payload: bytes) -> bytes:
    reading = json.loads(payload)
    name = "soc" if "soc" in reading else "voltage"
    return json.dumps({**reading, name: str(reading[name])}).encode()


def _both_kinds(payload: bytes) -> bytes:
    reading = json.loads(payload)
    return json.dumps({**reading, "vehicleId": "EV_X", "meterId": "METER_X", **reading}).encode()


def _with_first_value(literal: bytes) -> Callable[[bytes], bytes]:
    """The energy replaced by a literal that `json.dumps` would not write."""

    def spoil(payload: bytes) -> bytes:
        before, after = payload.split(b'"kwh', 1)
        name, rest = after.split(b":", 1)
        return before + b'"kwh' + name + b":" + literal + b"," + rest.split(b",", 1)[1]

    return spoil


def _other_device(payload: bytes) -> bytes:
    return payload.replace(b'Id":"', b'Id":"not-', 1)


MALFORMATIONS = (
    Malformation("invalid_field", _without_timestamp),
    Malformation("invalid_field", _naive),
    Malformation("invalid_field", _changed(timestamp=1760000000)),
    Malformation("invalid_field", _text_number),
    Malformation("invalid_field", _changed(soc=250.0, voltage=-5.0)),
    Malformation("invalid_field", _changed(kwhDeliveredDc=None, kwhConsumedAc=None)),
    Malformation("invalid_field", _with_first_value(b"NaN")),
    Malformation("invalid_field", _changed(kwhDeliveredDc=1e300, kwhConsumedAc=1e300)),
    Malformation("invalid_field", _changed(note="cut\0here")),
    Malformation("not_a_reading", _both_kinds, anywhere=False),
    Malformation("not_json", lambda payload: payload[: len(payload) // 2], anywhere=False),
    Malformation("not_json", lambda payload: payload.replace(b"timestamp", b"time\xff\xfestamp"), anywhere=False),
    Malformation("not_json", lambda payload: b"[" * 2000 + payload, anywhere=False),
    Malformation("not_json", lambda _: b"", anywhere=False),
    Malformation("not_a_reading", lambda _: b"[]", anywhere=False),
    Malformation("not_a_reading", lambda payload: json.dumps(payload.decode()).encode(), anywhere=False),
    Malformation("device_mismatch", _other_device, anywhere=False),
)
ANYWHERE = tuple(m for m in MALFORMATIONS if m.anywhere)
