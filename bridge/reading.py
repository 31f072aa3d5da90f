"""What a reading means and which values it may have.

One device sends one reading a minute. Its identity is (device, timestamp), the same over MQTT and HTTP.
Energies are those of the interval since the device's last reading, signed: negative flows back to the grid.
"""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, NewType, cast

from pydantic import Field, GetPydanticSchema
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function, str_schema

DeviceId = NewType("DeviceId", str)
"""A vehicle's or meter's name: `[A-Za-z0-9_-]{1,64}`, so that it is one MQTT topic level and one URL segment."""

Kind = Literal["vehicle", "meter"]

DEVICE_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_DEVICE_ID = re.compile(DEVICE_ID_PATTERN[1:-1]).fullmatch
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_as_json = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
# A backslash that is itself escaped does not begin an escape: only an odd run of them before u0000 is a NUL.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search


def parse_timestamp(value: object) -> datetime:
    """Read an RFC 3339 timestamp with an offset; the result is UTC, to the microsecond.

    An aware `datetime` is taken as it is. Raises a pydantic error with the reason otherwise.
    """
    if type(value) is str:
        return parse_rfc3339(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PydanticCustomError("timestamp", "Input should have an offset from UTC")
        return value.astimezone(UTC)
    raise PydanticCustomError("timestamp", "Input should be an RFC 3339 string")


@lru_cache(maxsize=8192)  # a fleet reports in step: most texts were seen a moment ago
def parse_rfc3339(text: str) -> datetime:
    """The same for a text: UTC, to the microsecond. Raises a pydantic error with the reason."""
    if _RFC3339(text) is None:
        raise PydanticCustomError("timestamp", "Input should be RFC 3339 with an offset, as in 2026-02-10T10:15:00Z")
    try:
        parsed = datetime.fromisoformat(text.upper())
        return parsed if parsed.tzinfo is UTC else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise PydanticCustomError("timestamp", "{reason}", {"reason": str(error)}) from None


def format_timestamp(value: datetime) -> str:
    """The RFC 3339 form in UTC with `Z`; fractions of a second only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


# On the path of every reading: after pydantic's own check for a string, which costs less than a call of Python's.
Timestamp = Annotated[
    datetime,
    GetPydanticSchema(lambda *_: no_info_after_validator_function(parse_rfc3339, str_schema(strict=True))),
]
Id = Annotated[DeviceId, Field(pattern=DEVICE_ID_PATTERN, strict=True)]
Kwh = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False, strict=True)]


Extra = dict[str, Any] | None
"""Fields that the contract does not name, kept so that a newer firmware loses nothing."""


def jsonb_text(fields: dict[str, Any]) -> str:
    """Fields as JSON that PostgreSQL's jsonb takes.

    Raises `ValueError` for what it cannot hold: NaN, infinities, lone surrogates and NUL.
    """
    text = _as_json(fields)
    text.encode()
    if "\\u0000" in text and _ESCAPED_NUL(text):
        raise ValueError("NUL cannot be stored")
    return text


class VehicleReading(NamedTuple):
    """A vehicle's minute: state of charge (%), DC energy into the battery (kWh), battery temperature (degC).

    Its values lie as the columns of its table do; the limits of each are held where it is read from JSON
    (bridge/payload.py), not here.
    """

    vehicle_id: Id
    timestamp: Timestamp
    soc: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]
    kwh_delivered_dc: Kwh
    battery_temp: Annotated[float, Field(ge=-60, le=150, allow_inf_nan=False, strict=True)]
    extra: Extra = None

    @property
    def kind(self) -> Kind:
        return "vehicle"

    @property
    def device(self) -> DeviceId:
        return self.vehicle_id


class MeterReading(NamedTuple):
    """A smart meter's minute: AC energy taken from the grid (kWh) and voltage (V). As `VehicleReading` else."""

    meter_id: Id
    timestamp: Timestamp
    kwh_consumed_ac: Kwh
    voltage: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False, strict=True)]
    extra: Extra = None

    @property
    def kind(self) -> Kind:
        return "meter"

    @property
    def device(self) -> DeviceId:
        return self.meter_id


Reading = VehicleReading | MeterReading


def is_device_id(text: str) -> bool:
    """Whether `text` can be a device's name."""
    return _DEVICE_ID(text) is not None


def device_id(text: str) -> DeviceId:
    """`text` as a device's name. Raises `ValueError` when it cannot be one."""
    if not is_device_id(text):
        raise ValueError(f"a device id has the form {DEVICE_ID_PATTERN[1:-1]}")
    return cast(DeviceId, text)
