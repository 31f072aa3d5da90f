"""One reading as the contract's JSON object, and back. Pure.

pydantic holds the limits that the contract declares. It gives known fields in the contract's order and unknown ones
after them, so the names of what it returns say at once which class of reading it is.
"""

from collections.abc import Callable
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict

from bridge.contract import KINDS, Kind, Measure
from bridge.reading import NOT_UNICODE, FieldWarning, Flagged, Id, Reading, Timestamp, format_timestamp, shapes_of

_MOST_REMEMBERED = 1_000  # sets of names: a fleet has a few, a hostile device as many as it likes
_CONFIG = ConfigDict(extra="allow", hide_input_in_errors=True)
REFUSED = "refused"
"""In `extra`: the original values of gauges that could not be taken, by their names."""


class Payload:
    """How the readings of one kind look as JSON objects."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.topic = kind.topic("").removesuffix("/telemetry")
        """How the topics of its devices begin."""
        self._names = (kind.id_field, "timestamp", *(measure.name for measure in kind.measures))
        self._known = frozenset(self._names)
        self._measures = frozenset(measure.name for measure in kind.measures)
        self._gauges = {measure.name for measure in kind.of_sort("gauge")}
        self._shapes = shapes_of(kind)
        self._plain: dict[tuple[str, ...], type[Reading]] = {}
        """Classes of readings by the names of an object that has no unknown field."""
        self._with_unknown: dict[tuple[str, ...], tuple[type[Reading], int]] = {}
        """The same for objects that have unknown fields, and how many of their names are known."""
        fields: dict[str, Any] = {kind.id_field: Id, "timestamp": Timestamp}
        fields |= {measure.name: NotRequired[_value(measure)] for measure in kind.measures}
        contract = with_config(_CONFIG)(TypedDict(f"{kind.name.capitalize()}Payload", fields))  # type: ignore[operator]
        validator = TypeAdapter(contract).validator
        self.from_json: Callable[[bytes], Reading] = self._reader(validator.validate_json)
        """An object's text as a reading. Raises pydantic's `ValidationError`, which names the field and the reason."""
        self.from_fields: Callable[[dict[str, Any]], Reading] = self._reader(validator.validate_python)
        """The same for an object that has been parsed already."""
        several = Annotated[list[contract], Field(fail_fast=True)]  # type: ignore[valid-type]
        self._several = TypeAdapter(several).validator.validate_json

    def _reader(self, validate: Callable[[Any], dict[str, Any]]) -> Callable[[Any], Reading]:
        plain, odd = self._plain.get, self._odd

        def read(given: Any) -> Reading:
            fields = validate(given)
            shape = plain(tuple(fields))
            if shape is None:
                return odd(fields)
            return shape((*fields.values(), None))

        return read

    def all_from_json(self, text: bytes) -> list[Reading]:
        """An array's text as readings, when each element is one of this kind; a third less than one by one costs.

        Raises `ValidationError` at the first that is none.
        """
        plain, odd = self._plain.get, self._odd
        objects: list[dict[str, Any]] = self._several(text)
        return [
            odd(fields) if (shape := plain(tuple(fields))) is None else shape((*fields.values(), None))
            for fields in objects
        ]

    def _odd(self, fields: dict[str, Any]) -> Reading:
        """The reading of valid fields when some are unknown, or when they are the first of their names."""
        names, values = tuple(fields), tuple(fields.values())
        shape, known = self._with_unknown.get(names) or self._remembered(names)
        if not shape.measures:
            raise self._without_measure()
        extra = dict(zip(names[known:], values[known:], strict=True))
        return shape((*values[:known], extra or None))

    def _remembered(self, names: tuple[str, ...]) -> tuple[type[Reading], int]:
        """The class for these names, of which the contract's come first, and how many those are."""
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
        """A parsed object as a reading without the measures that are null and the gauges that are wrong.

        A bad gauge does not cost the minute's energy: its original goes to `extra.refused`. An unknown field whose name
        is not Unicode (a lone surrogate) is dropped. Raises `ValidationError` when something else is wrong, or when no
        measure is left.
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
        if REFUSED in kept:  # the name is ours now
            refused[REFUSED] = kept[REFUSED]
        warnings = (FieldWarning("refused", name, message) for name, message in problems.items())
        return Flagged(self.from_fields({**kept, REFUSED: refused}), (*dropped, *warnings))

    def _without_measure(self) -> ValidationError:
        names = ", ".join(self._names[2:])
        error = PydanticCustomError("no_measure", "a reading must have at least one of {names}", {"names": names})
        return ValidationError.from_exception_data("reading", [InitErrorDetails(type=error, input=None)])

    def fields(self, reading: Reading) -> dict[str, Any]:
        """The object: id, the values that the reading has, timestamp, and what the contract does not name."""
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
