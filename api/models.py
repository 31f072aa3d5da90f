"""Models of the responses, for the OpenAPI document and for the routes that build responses from parts."""

from datetime import date
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel

from api.energy.performance import IntervalSource
from api.period import Instant
from bridge.contract import Kind


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True, ser_json_inf_nan="null"
    )


Coverage = Annotated[
    float | None,
    Field(ge=0, le=1, description="Covered time / elapsed time; null while no time has elapsed."),
]
DetachedDays = Annotated[
    list[date], Field(description="UTC days whose partition is detached: their readings are not in the figures.")
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
def live_model(kind: Kind) -> type[BaseModel]:
    """The latest state of a device of this kind."""
    fields: dict[str, Any] = {
        "silent": Annotated[
            bool,
            Field(description="The last reading is more than 3 intervals old: of the declared one, or the default."),
        ],
        "age_seconds": Annotated[
            float, Field(description="Time since `timestamp`, s; negative if the device's clock is fast.")
        ],
    }
    name = kind.name.capitalize()
    doc = f"The latest state of a {kind.name}."
    return create_model(f"Live{name}", __base__=state_model(kind), __doc__=doc, **fields)


@cache
def _never_reported_model(kind: Kind) -> type[BaseModel]:
    """A declared device of this kind that never reported."""
    fields: dict[str, Any] = dict.fromkeys(("timestamp", "received_at", "age_seconds"), None)
    fields |= {"silent": Annotated[bool, Field(description="The declaration is more than 3 intervals old.")]}
    name = kind.name.capitalize()
    doc = f"A declared {kind.name} of which no reading was ever stored: every measure is null, too."
    return create_model(f"NeverReported{name}", __base__=state_model(kind), __doc__=doc, **fields)


@cache
def live_page_model(kind: Kind) -> type[BaseModel]:
    """A page of latest states of this kind."""
    fields: dict[str, Any] = {
        "items": list[live_model(kind) | _never_reported_model(kind)],  # type: ignore[misc]
        "next_cursor": str | None,
        "changed_since": Annotated[str, Field(description="Send it as `changedSince` to get only later changes.")],
    }
    name = kind.name.capitalize()
    return create_model(f"Live{name}Page", __base__=_Answer, __doc__=f"Latest states of {kind.plural}.", **fields)


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


class Gap(_Answer):
    """Time in which energy is not known: no reading covers it, or what a reading says was withheld."""

    side: Annotated[Literal["dc", "ac"], Field(description="dc: the vehicle's; ac: a meter's while assigned to it.")]
    meter_id: str | None
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]


class MeterPeriod(_Answer):
    """The energy of a meter in one period of its assignment, limited to the requested period."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    kwh_consumed_ac: Kwh
    readings: int
    coverage: Coverage


IntervalS = Annotated[float, Field(description="Device interval of the last reading in the period, s.")]
IntervalSourceField = Annotated[
    IntervalSource,
    Field(
        description="`declared` in the register; `observed` on the UTC day of the last reading in the period; "
        "or the `default`."
    ),
]


class MeterShare(_Answer):
    """The energy of one meter while it was assigned to the vehicle."""

    meter_id: str
    kwh_consumed_ac: Kwh
    readings: int
    coverage: Coverage
    unassigned_kwh: Annotated[float, Field(description="kWh that the meter measured in the period for no vehicle.")]
    interval_s: IntervalS
    interval_source: IntervalSourceField
    periods: list[MeterPeriod]


class PerformanceFigures(_Answer):
    """A vehicle's energy over a period as one row."""

    vehicle_id: str
    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    total_kwh_consumed_ac: Annotated[Kwh, Field(description="Net kWh from the meters while assigned to the vehicle.")]
    total_kwh_delivered_dc: Annotated[Kwh, Field(description="Net kWh into the battery, driving included.")]
    charge_kwh_ac: Annotated[float, Field(description="kWh drawn while both sides are covered, see figures.md.")]
    charge_kwh_dc: Annotated[float, Field(description="kWh into the battery in the same time.")]
    efficiency: Annotated[
        float | None, Field(description="chargeKwhDc / chargeKwhAc. Above 1 it shows a fault; it is never clamped.")
    ]
    efficiency_reason: Annotated[str | None, Field(description="Why there is no efficiency.")]
    discharge_kwh_dc: Annotated[float, Field(description="kWh out of the battery while an assigned meter fed back.")]
    discharge_kwh_ac: Annotated[float, Field(description="kWh fed back in the same time.")]
    discharge_efficiency: Annotated[float | None, Field(description="dischargeKwhAc / dischargeKwhDc.")]
    avg_battery_temp: Annotated[float | None, Field(description="degC, over the measured time.")]
    readings: Annotated[int, Field(description="Of the vehicle.")]
    coverage: Annotated[Coverage, Field(description="The same as dcCoverage.")]
    dc_coverage: Annotated[Coverage, Field(description="Of the vehicle's energy: covered time / elapsed time.")]
    ac_coverage: Annotated[Coverage, Field(description="The same of the meters while assigned; null without any.")]
    complete: Annotated[bool, Field(description="No gap, no reset, nothing withheld on either side.")]
    boundary_kwh: Annotated[
        float, Field(description="kWh of the intervals across the period's edges, which were divided by time.")
    ]
    divided_kwh: Annotated[
        float,
        Field(description="kWh of the meters' intervals in which an assignment to the vehicle begins or ends, whole."),
    ]
    suspect_kwh: Annotated[float, Field(description="kWh withheld: more than rated power allows.")]
    unassigned_kwh: Annotated[float, Field(description="kWh that these meters measured for no vehicle.")]
    resets: Annotated[int, Field(description="Resets of registers.")]
    interval_s: IntervalS
    interval_source: IntervalSourceField
    detached_days: DetachedDays


class Performance(PerformanceFigures):
    """A vehicle's energy over a period, and what it rests on."""

    gaps: Annotated[list[Gap], Field(max_length=1000, description="The longest 1,000, in the order of time.")]
    meters: list[MeterShare]


class EnergyItem(_Answer):
    """The energy of a device, a site or the fleet in one bucket.

    A value that does not apply or was not measured is null.
    """

    id: Annotated[str | None, Field(description="The device or the site; null for the fleet.")]
    start: Annotated[Instant, Field(alias="from", description="Of the bucket, cut to the period.")]
    end: Annotated[Instant, Field(alias="to")]
    kwh_ac: Annotated[Kwh, Field(description="Net kWh of the meters; of a vehicle: from its meters while assigned.")]
    kwh_dc: Annotated[Kwh, Field(description="Net kWh into the batteries, driving included.")]
    kwh_in: Annotated[Kwh, Field(description="kWh in: a vehicle's DC into the battery; else AC drawn from the grid.")]
    kwh_out: Annotated[Kwh, Field(description="kWh out: a vehicle's DC out of the battery; else AC fed back.")]
    coverage: Annotated[Coverage, Field(description="Covered time / elapsed time, over the devices of the item.")]
    boundary_kwh: Annotated[float, Field(description="kWh of the intervals across the bucket's edges.")]
    suspect_kwh: Annotated[float, Field(description="kWh withheld: more than rated power allows.")]
    unassigned_kwh: Annotated[float | None, Field(description="Net kWh of the meters that belongs to no vehicle.")]
    resets: Annotated[int, Field(description="Resets of registers.")]


class EnergyPage(_Answer):
    """Energy by device or site and time."""

    detached_days: DetachedDays
    items: list[EnergyItem]
    next_cursor: str | None


class EfficiencyItem(_Answer):
    """Losses and efficiency of charging of the fleet or a site, over the quarter hours that can be compared."""

    id: Annotated[str | None, Field(description="The site; null for the fleet.")]
    start: Annotated[Instant, Field(alias="from", description="Of the first whole quarter hour.")]
    end: Annotated[Instant, Field(alias="to", description="Of the last whole quarter hour.")]
    as_of: Annotated[Instant, Field(description="Until when the keeper has summarized quarter hours of both kinds.")]
    charge_kwh_ac: Annotated[float, Field(description="kWh that meters drew in the compared quarter hours.")]
    charge_kwh_dc: Annotated[float, Field(description="kWh into the batteries in the same quarter hours.")]
    loss_kwh: Annotated[float | None, Field(description="chargeKwhAc - chargeKwhDc; null without compared energy.")]
    efficiency: Annotated[float | None, Field(description="chargeKwhDc / chargeKwhAc; null without compared energy.")]
    kwh_ac: Annotated[float, Field(description="kWh that meters drew in all summarized quarter hours of the period.")]
    compared: Annotated[float | None, Field(ge=0, le=1, description="chargeKwhAc / kwhAc; null without energy.")]
    quarters: Annotated[int, Field(description="Compared quarter hours, of all meters.")]
    vehicles: Annotated[int, Field(description="Vehicles with a compared quarter hour.")]


class EfficiencyList(_Answer):
    """Losses and efficiency of the fleet or of sites."""

    detached_days: DetachedDays
    items: list[EfficiencyItem]


class SeriesColumn(_Answer):
    """The values of a measure in one column of time."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    count: Annotated[int, Field(description="Readings with the measure.")]
    first: float
    last: float
    least: Annotated[float, Field(alias="min")]
    most: Annotated[float, Field(alias="max")]


class MeasureSeries(_Answer):
    """One measure; a column in which it was not measured is left out."""

    measure: str
    unit: str
    columns: list[SeriesColumn]


class Series(_Answer):
    """Measures of a device over a period."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    detached_days: DetachedDays
    series: list[MeasureSeries]


class Algorithm(_Answer):
    """What made the list; the version rises when the same readings would give another one."""

    name: str
    version: int


class Session(_Answer):
    """A stretch of time in which a vehicle was charged, or in which a meter drew energy for no vehicle."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    vehicle_id: Annotated[str | None, Field(description="Null: the meter was not assigned.")]
    meter_ids: Annotated[list[str], Field(description="Through which energy flowed; none: charged at no known meter.")]
    site: Annotated[str | None, Field(description="Declared for these meters; null when they are at several.")]
    kwh_ac: Annotated[Kwh, Field(description="Net kWh from these meters; null without any.")]
    kwh_dc: Annotated[Kwh, Field(description="Net kWh into the battery; null when it was not measured.")]
    efficiency: Annotated[
        float | None, Field(description="DC into the battery / AC drawn, over the time in which both are covered.")
    ]
    peak_kw: Annotated[float, Field(description="The highest reported power, else the highest mean of an interval.")]
    mean_kw: Annotated[float, Field(description="kwhAc, without meters kwhDc, / duration.")]
    soc_from: Annotated[float | None, Field(description="% at the begin.")]
    soc_to: Annotated[float | None, Field(description="% at the end.")]
    battery_temp_from: Annotated[float | None, Field(description="degC at the begin.")]
    battery_temp_to: Annotated[float | None, Field(description="degC at the end.")]
    odometer_km: Annotated[float | None, Field(description="At the begin.")]
    coverage: Annotated[
        float, Field(ge=0, le=1, description="The part of the time in which the vehicle and these meters are covered.")
    ]
    open_start: Annotated[bool, Field(description="It may have begun earlier.")]
    open_end: Annotated[bool, Field(description="It may have gone on.")]
    resets: Annotated[int, Field(description="Resets of registers.")]
    suspect_kwh: Annotated[float, Field(description="kWh withheld: more than rated power allows.")]
    divided_kwh: Annotated[
        float, Field(description="kWh of the meters' intervals in which an assignment to the vehicle begins or ends.")
    ]


class SessionPage(_Answer):
    """Sessions by begin."""

    algorithm: Algorithm
    detached_days: DetachedDays
    items: list[Session]
    next_cursor: str | None


class Quality(_Answer):
    """How far the figures of one device can be relied on."""

    kind: Annotated[str, Field(description="vehicle or meter", examples=["meter"])]
    id: str
    site: Annotated[str | None, Field(description="Declared for the device.")]
    severity: Annotated[
        float, Field(ge=0, le=6, description="1 - coverage, and 1 for each other fault: silence and the next four.")
    ]
    silent: Annotated[
        bool,
        Field(
            description="The last reading, or the declaration of a device without one, is more than 3 device intervals "
            "old; also without both."
        ),
    ]
    resets: Annotated[int, Field(description="Resets of registers.")]
    suspect_kwh: Annotated[float, Field(description="kWh withheld: more than rated power allows.")]
    conflicts: Annotated[
        int, Field(description="Readings that were rejected in the period: another one has the same timestamp.")
    ]
    implausible: Annotated[
        int, Field(description="Readings whose interval has more energy than rated power allows; they are counted.")
    ]
    coverage: Coverage
    unassigned_kwh: Annotated[
        float | None, Field(description="Net kWh of a meter that belongs to no vehicle; null for a vehicle.")
    ]
    last_reading_at: Annotated[
        Instant | None, Field(description="Before the end of the period, or now; null when there is none.")
    ]
    age_s: Annotated[float | None, Field(description="Time since then, s.")]
    interval_s: Annotated[float, Field(description="Device interval: declared, observed, or the default, s.")]


class QualityTotals(_Answer):
    """The sums over all devices that were asked for."""

    devices: int
    faulty: Annotated[int, Field(description="Devices whose severity is not 0.")]
    silent: Annotated[int, Field(description="Silent devices, with and without a reading.")]
    never_seen: Annotated[int, Field(description="Devices without any reading before the end of the period.")]
    resets: int
    suspect_kwh: float
    conflicts: int
    implausible: int
    coverage: Annotated[Coverage, Field(description="Covered time / elapsed time of all devices together.")]
    unassigned_kwh: float


class QualityPage(_Answer):
    """Devices, the worst first."""

    start: Annotated[Instant, Field(alias="from")]
    end: Annotated[Instant, Field(alias="to")]
    as_of: Annotated[Instant, Field(description="`to`, or now if that is earlier: ages end here.")]
    detached_days: DetachedDays
    totals: QualityTotals
    items: list[Quality]
    next_cursor: str | None
