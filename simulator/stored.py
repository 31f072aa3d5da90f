"""The stored form of a reading, from its bytes as sent; derived from the contract, not the bridge's code."""

import json
from datetime import datetime
from typing import Any, NamedTuple

from bridge.contract import Kind, Measure
from bridge.formats.payload import REFUSED
from bridge.reading import parse_timestamp

Values = tuple[Any, ...]
"""The unknown fields or None, then the kind's measures, None where absent."""

_DEFAULT_INTERVAL_S = 60
"""For undeclared devices and a bridge with default settings."""


class Stored(NamedTuple):
    """A row of the history, and the warnings that its receipt must contain, as `field: code`."""

    at: datetime
    values: Values
    warnings: frozenset[str]


def time_of(payload: bytes) -> datetime:
    """The device time."""
    return parse_timestamp(json.loads(payload)["timestamp"])


def stored(kind: Kind, payload: bytes) -> Stored:
    """The stored form of a valid reading; the value of a refused gauge is stored in `extra.refused`."""
    fields = json.loads(payload)
    del fields[kind.id_field]
    at = parse_timestamp(fields.pop("timestamp"))
    given = {m: value for m in kind.measures if (value := fields.pop(m.name, None)) is not None}
    refused = {m.name: value for m, value in given.items() if m.sort == "gauge" and not _is_value(m, value)}
    values = [float(given[m]) if m in given and m.name not in refused else None for m in kind.measures]
    warnings = {f"{name}: refused" for name in refused}
    if (interval := kind.interval) in given and abs(given[interval]) > kind.rated_kw * _DEFAULT_INTERVAL_S / 3600:
        warnings.add(f"{interval.name}: implausible")
    if refused:
        earlier = {REFUSED: fields[REFUSED]} if REFUSED in fields else {}
        fields[REFUSED] = refused | earlier
    return Stored(at, (fields or None, *values), frozenset(warnings))


def _is_value(measure: Measure, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and measure.least <= value <= measure.most  # type: ignore[operator]
