"""A reading: the device, the time, and the values of its measures.

A device sends about one reading per minute. The identity of a reading is (device, timestamp), over MQTT and HTTP alike.
A reading is a tuple of device, time, the present values and the unknown fields; its class determines its kind and its
measures. A fleet needs a few such classes, and an absent measure needs no memory
(docs/decisions/0012-readings-are-tuples.md, 0014-one-contract.md).
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, NewType, cast

from pydantic import Field, GetPydanticSchema
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function, str_schema

from bridge.contract import Kind, Measure

DeviceId = NewType("DeviceId", str)
"""A device id: `[A-Za-z0-9_-]{1,64}`, so that it is valid as an MQTT topic level and as a URL segment."""

NOT_UNICODE = "not valid Unicode"
TIMESTAMP_RULE = "RFC 3339 with an offset, as in 2026-02-10T10:15:00Z"
"""The reason for a text with a lone surrogate or with bytes that are not UTF-8."""
_NO_SUCH_TIME = "Input should be an existing date and time, year 0001 to 9999 in UTC, without a leap second"

DEVICE_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
DEVICE_ID_RULE = "Device ids have 1 to 64 letters, digits, _ and -"
_DEVICE_ID = re.compile(DEVICE_ID_PATTERN[1:-1]).fullmatch
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_as_json = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
# An escaped backslash does not begin an escape: only an odd number of backslashes before u0000 is a NUL.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search


def parse_timestamp(value: object) -> datetime:
    """Parse an RFC 3339 timestamp with an offset; the result is in UTC, truncated to microseconds.

    An aware `datetime` is accepted too. Raises a pydantic error with the reason for other values.
    """
    if type(value) is str:
        return parse_rfc3339(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PydanticCustomError("timestamp", "Input should have an offset from UTC")
        return value.astimezone(UTC)
    raise PydanticCustomError("timestamp", "Input should be an RFC 3339 string")


@lru_cache(maxsize=8192)  # devices report at the same times: most texts were parsed shortly before
def parse_rfc3339(text: str) -> datetime:
    """The same for a string."""
    if _RFC3339(text) is None:
        raise PydanticCustomError("timestamp", f"Input should be {TIMESTAMP_RULE}")
    try:
        parsed = datetime.fromisoformat(text.upper())
        return parsed if parsed.tzinfo is UTC else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("timestamp", _NO_SUCH_TIME) from None


def format_timestamp(value: datetime) -> str:
    """Format as RFC 3339 in UTC with `Z`; without a fraction of a second when it is zero."""
    utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return utc.isoformat().removesuffix("+00:00") + "Z"


# Runs for every reading: pydantic checks for a string first, which costs less than a call of Python.
Timestamp = Annotated[
    datetime,
    GetPydanticSchema(lambda *_: no_info_after_validator_function(parse_rfc3339, str_schema(strict=True))),
]
Id = Annotated[DeviceId, Field(pattern=DEVICE_ID_PATTERN, strict=True)]


def is_device_id(text: str) -> bool:
    """Whether `text` is a valid device id."""
    return _DEVICE_ID(text) is not None


def device_id(text: str) -> DeviceId:
    """`text` as a device id. Raises `ValueError` when it is not valid."""
    if not is_device_id(text):
        raise ValueError(DEVICE_ID_RULE)
    return cast(DeviceId, text)


Extra = dict[str, Any] | None
"""Fields that the contract does not define; they are stored so that data of newer firmware is not lost."""


def jsonb_text(fields: dict[str, Any]) -> str:
    """Serialize fields as JSON that PostgreSQL's jsonb accepts.

    Raises `ValueError` for values that jsonb cannot store: NaN, infinities, lone surrogates and NUL.
    """
    try:
        text = _as_json(fields)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(NOT_UNICODE) from None
    except ValueError:
        raise ValueError("a number that is not finite cannot be stored") from None
    if "\\u0000" in text and _ESCAPED_NUL(text):
        raise ValueError("NUL cannot be stored")
    return text


class Reading(tuple[Any, ...]):
    """Device, timestamp, the values of `measures` in their order, and the unknown fields or None.

    The limits of the values are checked when they are decoded (bridge/formats/payload.py), not here. Each measure is
    also an attribute with the name of its column; an absent measure is None.
    """

    __slots__ = ()
    kind: ClassVar[Kind]
    measures: ClassVar[tuple[Measure, ...]]

    device: DeviceId = property(itemgetter(0))  # type: ignore[assignment]
    timestamp: datetime = property(itemgetter(1))  # type: ignore[assignment]
    extra: Extra = property(itemgetter(-1))  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __getattr__(self, column: str) -> Any: ...

    def values(self) -> dict[str, float]:
        """The present values, by the names of the contract."""
        return {measure.name: value for measure, value in zip(self.measures, self[2:-1], strict=True)}

    def changed(self, at: datetime | None = None, **values: float | None) -> "Reading":
        """A copy with other values by column, or with another time; None removes a value."""
        known = dict(zip((m.column for m in self.measures), self[2:-1], strict=True)) | values
        return reading(self.kind, self.device, at or self.timestamp, known, self.extra)

    def with_extra(self, extra: Extra) -> "Reading":
        """A copy with other unknown fields."""
        return tuple.__new__(type(self), (*self[:-1], extra))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{tuple(self)!r}"


def shapes_of(kind: Kind) -> "Shapes":
    """The reading classes of a kind, each created on first use."""
    return _SHAPES.get(kind) or _SHAPES.setdefault(kind, Shapes(kind))


class Shapes(dict[tuple[str, ...], type[Reading]]):
    """The class for each set of measures; the key is their names in the order of the contract."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, names: tuple[str, ...]) -> type[Reading]:
        measures = tuple(measure for measure in self._kind.measures if measure.name in names)
        if tuple(measure.name for measure in measures) != names:
            raise KeyError(names)
        attributes: dict[str, Any] = {measure.column: None for measure in self._kind.measures}
        attributes |= {measure.column: property(itemgetter(n)) for n, measure in enumerate(measures, start=2)}
        attributes |= {self._kind.id_column: Reading.device}
        attributes |= {"__slots__": (), "kind": self._kind, "measures": measures}
        self[names] = shape = type(f"{self._kind.name.capitalize()}Reading", (Reading,), attributes)
        return shape


_SHAPES: dict[Kind, Shapes] = {}


def reading(kind: Kind, device: str, at: datetime, values: Mapping[str, float | None], extra: Extra = None) -> Reading:
    """Make a reading from `values` by column; None means absent. Checks only the names.

    Raises `ValueError` for a column that the kind does not define.
    """
    if unknown := values.keys() - {measure.column for measure in kind.measures}:
        raise ValueError(f"a {kind.name} does not measure {', '.join(sorted(unknown))}")
    present = [measure for measure in kind.measures if values.get(measure.column) is not None]
    shape = shapes_of(kind)[tuple(measure.name for measure in present)]
    return tuple.__new__(shape, (device, at, *(values[measure.column] for measure in present), extra))


def same_values(one: Reading, other: Reading) -> bool:
    """Whether two readings of one identity are equal by the rules of jsonb: 1.0 equals 1, `true` does not."""
    return type(one) is type(other) and one[:-1] == other[:-1] and _same_json(one[-1], other[-1])


def _same_json(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    if type(one) in (int, float) and type(other) in (int, float):
        # The database compares decimal numbers as written. Unlike in Python, 1e23 is 10**23, and 2.0**60 is not 2**60.
        return Decimal(repr(one)) == Decimal(repr(other))
    return type(one) is type(other) and bool(one == other)


WarningCode = Literal["refused", "extra", "not_counted", "implausible", "truncated"]
"""*refused*: the value of a gauge is not valid. *extra*: unknown fields exceed their limits. *not_counted*: the energy
in an unknown field is in no figure. *implausible*: the energy of an interval exceeds the device's rated power.
*truncated*: the array was cut off after this element."""


class FieldWarning(NamedTuple):
    """A warning to the device about a reading that is stored nevertheless."""

    code: WarningCode
    field: str
    detail: str


class Flagged(NamedTuple):
    """A reading with the warnings of its decoding."""

    reading: Reading
    warnings: tuple[FieldWarning, ...]

    @property
    def kind(self) -> None:
        """None, as for rejects: code that selects plain readings by kind skips it."""
        return
