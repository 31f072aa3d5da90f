"""Malformed messages, each with the reason with which it must be rejected."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.contract import KINDS
from bridge.errors import Reason


class Malformation(NamedTuple):
    """Creates a malformed message from a valid one.

    Without `anywhere` it is only for a separate message over MQTT: inside an array or an HTTP body it would invalidate
    other items, have another meaning, or could not be attributed to its device.
    """

    reason: Reason
    spoil: Callable[[bytes], bytes]
    anywhere: bool = True


_ENERGIES = [measure.name for kind in KINDS for measure in kind.measures if measure.sort != "gauge"]


def _energy_of(reading: dict[str, Any]) -> str:
    """An energy that devices of this reading's kind may send."""
    kind = next(kind for kind in KINDS if kind.id_field in reading)
    return next(measure.name for measure in kind.measures if measure.sort != "gauge")


def _changed(**changes: Any) -> Callable[[bytes], bytes]:
    """Set or add fields."""

    def spoil(payload: bytes) -> bytes:
        return json.dumps({**json.loads(payload), **changes}).encode()

    return spoil


def _with_energy(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Change the first energy of the reading, or add one, because a wrong gauge does not reject a reading."""

    def spoil(payload: bytes) -> bytes:
        reading = json.loads(payload)
        name = next((name for name in reading if name in _ENERGIES), None) or _energy_of(reading)
        return json.dumps({**reading, name: change(reading.get(name, 0.0))}).encode()

    return spoil


def _without_timestamp(payload: bytes) -> bytes:
    return payload.split(b',"timestamp"')[0] + b"}"


def _naive(payload: bytes) -> bytes:
    return payload.replace(b'Z"}', b'"}')


def _without_measures(payload: bytes) -> bytes:
    reading = json.loads(payload)
    measures = {measure.name for kind in KINDS for measure in kind.measures}
    return json.dumps({name: None if name in measures else value for name, value in reading.items()}).encode()


def _both_kinds(payload: bytes) -> bytes:
    both = {kind.id_field: f"{kind.name}-x" for kind in KINDS}
    return json.dumps({**both, **json.loads(payload)}).encode()


def _other_device(payload: bytes) -> bytes:
    return payload.replace(b'Id":"', b'Id":"not-', 1)


MALFORMATIONS = (
    Malformation("invalid_field", _without_timestamp),
    Malformation("invalid_field", _naive),
    Malformation("invalid_field", _changed(timestamp=1760000000)),
    Malformation("invalid_field", _with_energy(str)),
    Malformation("invalid_field", _with_energy(lambda _: -1e10)),
    Malformation("invalid_field", _without_measures),
    Malformation("invalid_field", _with_energy(lambda _: float("nan"))),
    Malformation("invalid_field", _with_energy(lambda _: 1e300)),
    Malformation("invalid_field", _changed(timestamp="yesterday")),
    Malformation("not_a_reading", _both_kinds, anywhere=False),
    Malformation("not_json", lambda payload: payload[: len(payload) // 2], anywhere=False),
    Malformation("not_json", lambda payload: payload.replace(b":", b"\xff\xfe:", 1), anywhere=False),
    Malformation("not_json", lambda payload: b'{"a":' * 2000 + payload, anywhere=False),
    Malformation("not_json", lambda _: b"", anywhere=False),
    Malformation("not_a_reading", lambda _: b"[]", anywhere=False),
    Malformation("not_a_reading", lambda payload: json.dumps(payload.decode()).encode(), anywhere=False),
    Malformation("device_mismatch", _other_device, anywhere=False),
)
ANYWHERE = tuple(m for m in MALFORMATIONS if m.anywhere)
