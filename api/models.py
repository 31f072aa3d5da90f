"""Models of the responses, for the OpenAPI document and for the routes that build responses from parts."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel

from api.period import Instant
from bridge.contract import Kind


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True, ser_json_inf_nan="null"
    )


Coverage = Annotated[
    float | None,
    Field(ge=0, le=1, description="Readings present / expected; null while nothing is expected yet."),
]
Kwh = Annotated[float | None, Field(description="kWh, signed; null when it was not measured.")]


@cache
def state_model(kind: Kind) -> type[BaseModel]:
    """A reading of this kind in a response, with the limits of the contract."""
    fields: dict[str, Any] = {kind.id_column: Annotated[str, Field(examples=[kind.example_id])]}
    fields |= {
        m.column: Annotated[float | None, Field(ge=m.least, le=m.most, description=m.description)]
        for m in kind.measures
    }
    fields |= {
        "timestamp": Annotated[Instant, Field(description="Device time.")],
        "received_at": Annotated[Instant, Field(description="Time of storage.")],
        "extra": Annotated[
            dict[str, Any] | None,
            Field(description="Unknown fields; `refused` has the original values of refused gauges."),
        ],
    }
    name = kind.name.capitalize()
    return create_model(f"{name}State", __base__=_Answer, __doc__=f"A reading of a {kind.name}.", **fields)


@cache
def page_model(kind: Kind) -> type[BaseModel]:
    """A page of readings of this kind."""
    fields: dict[str, Any] = {"items": list[state_model(kind)], "next_cursor": str | None}  # type: ignore[misc]
    name = kind.name.capitalize()
    return create_model(f"{name}Page", __base__=_Answer, __doc__=f"Readings of {kind.plural}.", **fields)


class Assignment(_Answer):
    """A meter feeds a vehicle, or none, from `from` up to `to`."""

    meter_id: str
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[
        Instant | None, Field(alias="to", description="Begin of the meter's next assignment; null if there is none.")
    ]
    vehicle_id: str | None
    assigned_at: Instant


class AssignmentPage(_Answer):
    """A page of assignments."""

    items: list[Assignment]
    next_cursor: str | None


class MeterPeriod(_Answer):
    """The energy of a meter in one period of its assignment, limited to the requested period."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    kwh_consumed_ac: Kwh
    readings: int
    coverage: Coverage


class MeterShare(_Answer):
    """The energy of one meter while it was assigned to the vehicle."""

    meter_id: str
    kwh_consumed_ac: Kwh
    readings: int
    coverage: Coverage
    periods: list[MeterPeriod]


class Performance(_Answer):
    """A vehicle's energy over a period."""

    vehicle_id: str
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    total_kwh_consumed_ac: Annotated[Kwh, Field(description="kWh, from the meters while assigned to the vehicle.")]
    total_kwh_delivered_dc: Annotated[Kwh, Field(description="kWh into the battery.")]
    efficiency: Annotated[
        float | None, Field(description="DC / AC. A value above 1 indicates a fault; it is not clamped.")
    ]
    efficiency_reason: Annotated[str | None, Field(description="The reason why `efficiency` is null.")]
    avg_battery_temp: Annotated[float | None, Field(description="Time-weighted mean, degC.")]
    readings: Annotated[int, Field(description="Coverage of the vehicle's readings.")]
    coverage: Coverage
    meters: list[MeterShare]
