"""One reading as the contract's JSON object, and back. Pure.

The names are those of the reading's fields in camelCase, the limits are the ones written there, and pydantic holds
them. A reading is a tuple that lies as its row does: a model of pydantic takes six times the memory, and what waits
for its commit is more than a processor's caches hold (docs/decisions/0012-readings-are-tuples.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Generic, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, with_config
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from bridge.reading import Kind, MeterReading, VehicleReading, format_timestamp

R = TypeVar("R", VehicleReading, MeterReading)
_CONFIG = ConfigDict(extra="allow", hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Payload(Generic[R]):
    """How the readings of one kind look as JSON objects."""

    kind: Kind
    names: tuple[str, ...]
    """Of the contract's fields, in the order of the reading's: id, timestamp, values."""
    from_json: Callable[[bytes], R]
    """An object's text as a reading. Raises pydantic's `ValidationError`, which names the field and the reason."""
    from_fields: Callable[[dict[str, Any]], R]
    """The same for an object that has been parsed already."""

    def fields(self, reading: R) -> dict[str, Any]:
        """The object: id, values, timestamp, and what the contract does not name."""
        fields: dict[str, Any] = dict(zip(self.names, reading, strict=False))
        fields["timestamp"] = format_timestamp(fields.pop("timestamp"))
        return fields | (reading.extra or {})


def _payload(kind: Kind, reading: type[R]) -> Payload[R]:
    limits = get_type_hints(reading, include_extras=True)
    del limits["extra"]
    fields = {to_camel(name): limit for name, limit in limits.items()}
    contract = with_config(_CONFIG)(TypedDict(f"{kind.capitalize()}Payload", fields))  # type: ignore[operator]
    validator, names = TypeAdapter(contract).validator, tuple(fields)
    from_json, from_fields = (_reader(v, reading, names) for v in (validator.validate_json, validator.validate_python))
    return Payload(kind, names, from_json, from_fields)


def _reader(validate: Callable[[Any], dict[str, Any]], reading: type[R], names: tuple[str, ...]) -> Callable[[Any], R]:
    known: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(*names)
    count = len(names)

    def unknown(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: fields[name] for name in fields if name not in names}

    new = cast(Callable[[tuple[Any, ...]], R], partial(tuple.__new__, reading))  # half the cost of the class's own

    def read(given: Any) -> R:
        fields: dict[str, Any] = validate(given)
        return new((*known(fields), None if len(fields) == count else unknown(fields)))

    return read


VEHICLE = _payload("vehicle", VehicleReading)
METER = _payload("meter", MeterReading)
PAYLOADS: dict[Kind, Payload[Any]] = {"vehicle": VEHICLE, "meter": METER}
