"""The contract: the kinds of device, and the measures of each kind.

A measure is declared only here. JSON validation, reading types, the binary COPY, SQL, the JSON and CSV responses of the
API, the OpenAPI document, topics, the broker's access list and the table of docs/devices.md are derived from these
declarations. A new measure needs one line here and one migration.
"""

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, NamedTuple

Sort = Literal["interval", "register", "gauge"]
"""*interval*: energy since the device's previous reading, stamped at its end, signed. *register*: a counter whose
differences are energy. *gauge*: the state at the reading's instant."""

_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@cache
def snake_case(name: str) -> str:
    """The column name for a name of the JSON contract: `kwhDeliveredDc` becomes `kwh_delivered_dc`."""
    return _WORD_BOUNDARY.sub("_", name).lower()


class Measure(NamedTuple):
    """One quantity that a device of some kind reports; it is optional in every reading."""

    name: str
    """The name in JSON, CSV and query parameters."""
    sort: Sort
    unit: str
    least: float
    most: float
    meaning: str
    example: float | None = None
    """The value in the example of the documentation; None leaves the measure out of the example."""
    sign: int = 1
    """Of a register: +1 for energy in (into the battery, drawn from the grid), -1 for energy out."""
    averaged: bool = False
    """Of a gauge: whether its mean over time is asked for, so that the quarter hours keep its integral."""

    @property
    def column(self) -> str:
        """The column name in SQL."""
        return snake_case(self.name)

    @property
    def description(self) -> str:
        """The meaning with the unit, for the documentation: `State of charge, %.`"""
        return f"{self.meaning}, {self.unit}."


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of device. Kinds are compared by identity."""

    name: str
    """The name in topics, URLs, table names and `{name}Id`."""
    measures: tuple[Measure, ...]
    rated_kw: float
    """The rated power, in kW, of a device that declares none."""
    example_id: str

    @cached_property
    def plural(self) -> str:
        """The name in URLs: `/v1/live/{plural}`."""
        return f"{self.name}s"

    @cached_property
    def id_field(self) -> str:
        """The field of the device id in JSON; its presence determines the kind of a reading."""
        return f"{self.name}Id"

    @cached_property
    def id_column(self) -> str:
        return f"{self.name}_id"

    @cached_property
    def history_table(self) -> str:
        return f"{self.name}_telemetry_history"

    @cached_property
    def live_table(self) -> str:
        return f"{self.name}_live_status"

    @cached_property
    def quarter_table(self) -> str:
        """The table of the summaries of quarter hours."""
        return f"{self.name}_quarter"

    @cached_property
    def hour_table(self) -> str:
        """The table of the summaries of hours."""
        return f"{self.name}_hour"

    @cached_property
    def six_hour_table(self) -> str:
        """The table of the summaries of six hours."""
        return f"{self.name}_six_hour"

    @cached_property
    def dirty_table(self) -> str:
        """The table of the quarter hours whose summary lacks a reading."""
        return f"{self.name}_quarter_dirty"

    @cached_property
    def topic_filter(self) -> str:
        """The topic filter that the bridge subscribes to."""
        return self.topic("+")

    def topic(self, device: str) -> str:
        """The topic to which a device publishes its readings."""
        return f"fleet/{self.name}/{device}/telemetry"

    def of_sort(self, sort: Sort) -> tuple[Measure, ...]:
        """The measures of one sort, in the order of the contract."""
        return tuple(measure for measure in self.measures if measure.sort == sort)

    @cached_property
    def interval(self) -> Measure | None:
        """The measure of the energy since the previous reading, if devices of this kind report it."""
        return next(iter(self.of_sort("interval")), None)

    @cached_property
    def register_in(self) -> Measure | None:
        """The counter of the energy in, if devices of this kind report it."""
        return next((measure for measure in self.of_sort("register") if measure.sign > 0), None)

    @cached_property
    def register_out(self) -> Measure | None:
        """The counter of the energy out, if devices of this kind report it."""
        return next((measure for measure in self.of_sort("register") if measure.sign < 0), None)

    @property
    def example(self) -> dict[str, str | float]:
        """A reading as JSON, for the documentation."""
        values = {m.name: m.example for m in self.measures if m.example is not None}
        return {self.id_field: self.example_id, **values, "timestamp": EXAMPLE_TIME}


EXAMPLE_TIME = "2026-02-10T10:15:00Z"

VEHICLE = Kind(
    "vehicle",
    (
        Measure("soc", "gauge", "%", 0, 100, "State of charge", 72.5),
        Measure(
            "kwhDeliveredDc",
            "interval",
            "kWh",
            -1000,
            1000,
            "DC energy since the previous reading, signed: + into the battery, - out of it",
            4.25,
        ),
        Measure("batteryTemp", "gauge", "degC", -60, 150, "Battery temperature", 38.6, averaged=True),
        Measure("kwhChargedRegister", "register", "kWh", 0, 1e9, "Counter of the energy charged"),
        Measure("kwhDischargedRegister", "register", "kWh", 0, 1e9, "Counter of the energy discharged", sign=-1),
        Measure("powerKw", "gauge", "kW", -5000, 5000, "Power at the instant, signed: + into the battery"),
        Measure("odometerKm", "gauge", "km", 0, 1e7, "Distance driven since the vehicle was made"),
    ),
    rated_kw=500,
    example_id="EV_002",
)
METER = Kind(
    "meter",
    (
        Measure(
            "kwhConsumedAc",
            "interval",
            "kWh",
            -1000,
            1000,
            "AC energy since the previous reading, signed: + drawn from the grid, - fed back",
            5.1,
        ),
        Measure("voltage", "gauge", "V", 0, 1000, "Voltage", 231.5),
        Measure("kwhImportRegister", "register", "kWh", 0, 1e9, "Counter of the energy drawn from the grid"),
        Measure("kwhExportRegister", "register", "kWh", 0, 1e9, "Counter of the energy fed back", sign=-1),
        Measure("powerKw", "gauge", "kW", -5000, 5000, "Power at the instant, signed: + drawn from the grid"),
    ),
    rated_kw=1000,
    example_id="METER_001",
)

KINDS: tuple[Kind, ...] = (VEHICLE, METER)
"""Every kind, in the order in which writers lock their tables, so that two writers cannot deadlock."""

KIND_OF: dict[str, Kind] = {kind.name: kind for kind in KINDS}
