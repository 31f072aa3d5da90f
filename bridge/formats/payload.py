"""Converts between a reading and its JSON object. Pure.

pydantic checks the limits that the contract declares. It returns known fields in the contract's order and unknown
ones after them, so the names determine the class of the reading with one look-up.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict

from bridge.contract import KINDS, Kind, Measure
from bridge.reading import NOT_UNICODE, FieldWarning, Flagged, Id, Reading, Timestamp, format_timestamp, shapes_of

_MOST_REMEMBERED = 1_000  # sets of names: a fleet has a few, but a hostile device could send any number
_CONFIG = ConfigDict(extra="allow", hide_input_in_errors=True)
REFUSED = "refused"
"""The field of `extra` that contains the original values of refused gauges, by their names."""


class Payload:
    """The JSON objects of the readings of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.topic = kind.topic("").removesuffix("/telemetry")
        """The prefix of the topics of its devices."""
        self._names = (kind.id_field, "timestamp", *(measure.name for measure in kind.measures))
        self._known = frozenset(self._names)
        self._measures = frozenset(measure.name for measure in kind.measures)
        self._gauges = {measure.name for measure in kind.of_sort("gauge")}
        self._shapes = shapes_of(kind)
        self._plain: dict[tuple[str, ...], type[Reading]] = {}
        """Classes of readings by the names of an object without unknown fields."""
        self._with_unknown: dict[tuple[str, ...], tuple[type[Reading], int]] = {}
        """The same for objects with unknown fields, with the number of known names."""
        fields: dict[str, Any] = {kind.id_field: Id, "timestamp": Timestamp}
        fields |= {measure.name: NotRequired[_value(measure)] for measure in kind.measures}
        contract = with_config(_CONFIG)(TypedDict(f"{kind.name.capitalize()}Payload", fields))  # type: ignore[operator]
        validator = TypeAdapter(contract).validator
        self.from_json: Callable[[bytes], Reading] = self._reader(validator.validate_json)
        """Decode an object's JSON text. Raises pydantic's `ValidationError`, which names the field and the reason."""
        self.from_fields: Callable[[dict[str, Any]], Reading] = self._reader(validator.validate_python)
        """The same for a parsed object."""
        several = Annotated[list[contract], Field(fail_fast=True)]  # type: ignore[valid-type]
        self._several = TypeAdapter(several).validator.validate_json

    def _reader(self, validate: Callable[[Any], dict[str, Any]]) -> Callable[[Any], Reading]:
        plain, other = self._plain.get, self._other

        def read(given: Any) -> Reading:
            fields = validate(given)
            shape = plain(tuple(fields))
            if shape is None:
                return other(fields)
            return shape((*fields.values(), None))

        return read

    def all_from_json(self, text: bytes) -> list[Reading]:
        """Decode the JSON text of an array of readings of this kind; costs a third less than one by one.

        Raises `ValidationError` at the first element that is not such a reading.
        """
        plain, other = self._plain.get, self._other
        objects: list[dict[str, Any]] = self._several(text)
        return [
            other(fields) if (shape := plain(tuple(fields))) is None else shape((*fields.values(), None))
            for fields in objects
        ]

    def _other(self, fields: dict[str, Any]) -> Reading:
        """The reading of valid fields if some are unknown, or if this set of names occurs for the first time."""
        names, values = tuple(fields), tuple(fields.values())
        shape, known = self._with_unknown.get(names) or self._remembered(names)
        if not shape.measures:
            raise self._without_measure(names[known:])
        extra = dict(zip(names[known:], values[known:], strict=True))
        return shape((*values[:known], extra or None))

    def _remembered(self, names: tuple[str, ...]) -> tuple[type[Reading], int]:
        """The class for these names, of which the known ones come first, and the number of known ones."""
        known = sum(name in self._known for name in names)
        shape = self._shape(names[:known])
        if known < len(names) and len(self._with_unknown) < _MOST_REMEMBERED:
            self._with_unknown[names] = shape, known
        return shape, known

    def _shape(self, known: tuple[str, ...]) -> type[Reading]:
        shape = self._shapes[known[2:]]
        if shape.measures:
            self._plain[known] = shape
        return shape

    def leniently(self, fields: dict[str, Any]) -> Flagged:
        """Decode a parsed object without the measures that are null and the gauges that are invalid.

        An invalid gauge must not lose the energy of the interval: its original value is stored in `extra.refused`. An
        unknown field whose name is not valid Unicode is dropped. Raises `ValidationError` when another field is
        invalid, or when no measure is left.
        """
        fields = {name: value for name, value in fields.items() if value is not None or name not in self._measures}
        dropped = tuple(FieldWarning("extra", ascii(n)[1:-1][:100], NOT_UNICODE) for n in fields if not _is_unicode(n))
        if dropped:
            fields = {name: value for name, value in fields.items() if _is_unicode(name)}
        try:
            return Flagged(self.from_fields(fields), dropped)
        except ValidationError as error:
            problems = {str(e["loc"][0]) if e["loc"] else "": e["msg"] for e in error.errors()}
            kept = {name: value for name, value in fields.items() if name not in problems}
            if not problems.keys() <= self._gauges or self._measures.isdisjoint(kept):
                raise
        refused = {name: fields[name] for name in problems}
        if REFUSED in kept:  # the device's own field of this name is one of the originals
            refused[REFUSED] = kept[REFUSED]
        warnings = (FieldWarning("refused", name, message) for name, message in problems.items())
        return Flagged(self.from_fields({**kept, REFUSED: refused}), (*dropped, *warnings))

    def _without_measure(self, unknown: Sequence[str]) -> ValidationError:
        names, others = ", ".join(self._names[2:]), ", ".join(ascii(name)[1:-1][:100] for name in unknown[:3])
        rule = "a reading must have at least one of {names}" + ("; it has {others}" if others else "")
        error = PydanticCustomError("no_measure", rule, {"names": names, "others": others})
        return ValidationError.from_exception_data("reading", [InitErrorDetails(type=error, input=None)])

    def fields(self, reading: Reading) -> dict[str, Any]:
        """The JSON object: id, the present values, timestamp, and the unknown fields."""
        at = format_timestamp(reading.timestamp)
        return {self.kind.id_field: reading.device, **reading.values(), "timestamp": at, **(reading.extra or {})}


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(measure: Measure) -> Any:
    limits = Field(ge=measure.least, le=measure.most, allow_inf_nan=False, strict=True)
    return Annotated[float, limits]


PAYLOADS: dict[str, Payload] = {kind.name: Payload(kind) for kind in KINDS}
"""By the kind's name."""
