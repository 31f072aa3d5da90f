"""The shapes of answers, for the documentation and for the routes that build them from parts."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.period import Instant


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True, ser_json_inf_nan="null"
    )


Coverage = Annotated[
    float | None,
    Field(ge=0, le=1, description="Readings present / expected; null while nothing is expected yet."),
]
Kwh = Annotated[float | None, Field(description="kWh, signed; null when nobody measured it.")]


class VehicleState(_Answer):
    """One reading of a vehicle."""

    vehicle_id: str
    soc: Annotated[float, Field(description="State of charge, %.")]
    kwh_delivered_dc: Annotated[float, Field(description="kWh into the battery since the reading before, signed.")]
    battery_temp: Annotated[float, Field(description="degC.")]
    timestamp: Annotated[Instant, Field(description="Device time.")]
    received_at: Annotated[Instant, Field(description="When it was stored.")]
    extra: Annotated[dict[str, Any] | None, Field(description="Fields that the contract does not name.")]


class MeterState(_Answer):
    """One reading of a meter."""

    meter_id: str
    kwh_consumed_ac: Annotated[float, Field(description="kWh from the grid since the reading before, signed.")]
    voltage: Annotated[float, Field(description="V.")]
    timestamp: Annotated[Instant, Field(description="Device time.")]
    received_at: Annotated[Instant, Field(description="When it was stored.")]
    extra: Annotated[dict[str, Any] | None, Field(description="Fields that the contract does not name.")]


class VehiclePage(_Answer):
    """Readings of vehicles."""

    items: list[VehicleState]
    next_cursor: str | None


class MeterPage(_Answer):
    """Readings of meters."""

    items: list[MeterState]
    next_cursor: str | None


class Assignment(_Answer):
    """A meter feeds a vehicle, or none, from `from` up to `to`."""

    meter_id: str
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant | None, Field(alias="to", description="The meter's next assignment; null: until further.")]
    vehicle_id: str | None
    assigned_at: Instant


class AssignmentPage(_Answer):
    """Assignments in the order of the list that they are from."""

    items: list[Assignment]
    next_cursor: str | None


class MeterPeriod(_Answer):
    """What a meter measured in one period of its assignment, cut to the period that was asked for."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    kwh_consumed_ac: Kwh
    readings: int
    coverage: Coverage


class MeterShare(_Answer):
    """What one meter measured while it was assigned to the vehicle."""

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
    efficiency: Annotated[float | None, Field(description="DC / AC. Above 1 it shows a fault; it is never clamped.")]
    efficiency_reason: Annotated[str | None, Field(description="Why there is no efficiency.")]
    avg_battery_temp: Annotated[float | None, Field(description="degC, weighted by time.")]
    readings: Annotated[int, Field(description="Of the vehicle.")]
    coverage: Coverage
    meters: list[MeterShare]
