"""Models of the declarations of devices."""

from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from api.patterns import REQUIRED, TAG_PATTERN, TEXT_PATTERN, TIME_ZONE_PATTERN
from bridge.reading import DEVICE_ID_PATTERN

# Names that depend on the machine, or that are not time zones.
_NOT_IANA = frozenset({"localtime", "Factory"})


@cache
def time_zones() -> frozenset[str]:
    """The names of the IANA time zone database of this machine, or of the package tzdata."""
    return frozenset(available_timezones() - _NOT_IANA)


def _time_zone(name: str) -> str:
    if name not in time_zones():
        raise PydanticCustomError("time_zone", REQUIRED[TIME_ZONE_PATTERN])
    return name


def _distinct(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=TEXT_PATTERN)]
_TEXT = TypeAdapter[str](Text)
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=TAG_PATTERN)]
Tags = Annotated[
    list[Tag],
    Field(max_length=50, description="Duplicates are removed. In CSV, tags are separated by semicolons."),
    AfterValidator(_distinct),
]
TimeZone = Annotated[
    str, StringConstraints(pattern=TIME_ZONE_PATTERN), AfterValidator(_time_zone), Field(examples=["Europe/Berlin"])
]
Id = Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
IntervalS = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]
RatedKw = Annotated[float, Field(ge=0.001, le=100_000, allow_inf_nan=False)]


def is_text(text: str) -> bool:
    """Whether `text` may be a name or a site in the register."""
    try:
        return _TEXT.validate_python(text) == text
    except ValidationError:
        return False


class DeviceBody(BaseModel):
    """A declaration in a request for one device."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, serialize_by_alias=True)

    id: Annotated[Id | None, Field(description="Optional; must be equal to the id in the path.")] = None
    name: Annotated[Text | None, Field(description="Display name.")] = None
    site: Annotated[Text | None, Field(description="Site of the device.")] = None
    interval_s: Annotated[IntervalS | None, Field(description="Time between two readings, s.")] = None
    rated_kw: Annotated[RatedKw | None, Field(description="Rated power, kW.")] = None
    time_zone: Annotated[TimeZone | None, Field(description="IANA name of the device's time zone.")] = None
    tags: Tags | None = None


class DeviceRow(DeviceBody):
    """A declaration in an import. Absent fields are unchanged; null clears a field."""

    id: Id


class Device(BaseModel):
    """The declaration of a device."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)

    id: Id
    name: str | None
    site: str | None
    interval_s: Annotated[float | None, Field(description="Time between two readings, s.")]
    rated_kw: Annotated[float | None, Field(description="Rated power, kW.")]
    time_zone: str | None
    tags: list[str]


class DevicePage(BaseModel):
    """Declarations in the order of their ids."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)

    items: list[Device]
    next_cursor: str | None


class Imported(BaseModel):
    """The result of an import. `rows` = `created` + `changed` + `unchanged`."""

    rows: int
    created: int
    changed: int
    unchanged: int
