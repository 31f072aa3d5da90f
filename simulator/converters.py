"""Recordings as readings, in the order of time. Pure but for reading the file.

Canonical forms are what the project itself speaks: CSV whose header names the contract's fields, and NDJSON. The
others are public recordings, each with its own habits, which the converters know and name.
"""

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from bridge.reading import DeviceId, MeterReading, Reading, VehicleReading

CAR_CLOCK_BEHIND_S = 7197.7
"""The car of the fast-charge recording is that far behind the charger, which keeps UTC."""

_MINUTE_S = 60
_NUMBERS = frozenset({"soc", "kwhDeliveredDc", "batteryTemp", "kwhConsumedAc", "voltage"})
_WH_PER_KWH = 1000
_UCI_ZONE = ZoneInfo("Europe/Paris")


class NotARecording(ValueError):
    """A file, or a line of it, that cannot be read; the text names both, the field and the reason."""


class Sample(NamedTuple):
    """One moment of a recording that is faster than a reading a minute. Energy counts from the recording's begin."""

    time_s: float
    energy_wh: float
    values: dict[str, float]


def canonical_csv(path: Path) -> Iterator[Reading]:
    """CSV whose header names the contract's fields; other columns become extra fields, kept as text."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            yield _reading(path, rows.line_num, {k: _typed(path, rows.line_num, k, v) for k, v in row.items()})


def canonical_ndjson(path: Path) -> Iterator[Reading]:
    """One reading of the contract a line."""
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise NotARecording(f"{path}:{number}: not JSON: {error}") from None
            yield _reading(path, number, fields)


def _typed(path: Path, line: int, name: str | None, text: str | None) -> str | float:
    if name is None or text is None:
        raise NotARecording(f"{path}:{line}: the row does not have as many fields as the header")
    if name not in _NUMBERS:
        return text
    try:
        return float(text)
    except ValueError:
        raise NotARecording(f"{path}:{line}: {name}: {text!r} is not a number") from None


def _reading(path: Path, line: int, fields: object) -> Reading:
    """Raises `NotARecording` for what is no reading of the contract."""
    if not isinstance(fields, dict) or ("vehicleId" in fields) == ("meterId" in fields):
        raise NotARecording(f"{path}:{line}: either vehicleId or meterId is required")
    model: type[Reading] = VehicleReading if "vehicleId" in fields else MeterReading
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise NotARecording(f"{path}:{line}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def uci(path: Path, device: DeviceId) -> Iterator[MeterReading]:
    """UCI "Individual household electric power consumption": mean kW of a minute, local time of Paris.

    Minutes without a measurement (`?`) are left out.
    """
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter=";"):
            if row["Global_active_power"] == "?":
                continue
            local = datetime.strptime(f"{row['Date']} {row['Time']}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=_UCI_ZONE)
            yield MeterReading(
                meter_id=device,
                kwh_consumed_ac=float(row["Global_active_power"]) / 60,
                voltage=float(row["Voltage"]),
                timestamp=local.astimezone(UTC),
            )


def ev_charger(path: Path, device: DeviceId) -> Iterator[MeterReading]:
    """The charger's side of a fast charge: energy from the differences of its register, ten rows a second.

    Its column `power` is garbage, and the header names `datetime` twice; neither is used.
    """
    with path.open(newline="") as file:
        samples = [
            Sample(float(row["timestamp"]), float(row["charged_energy"]), {"voltage": float(row["voltage"])})
            for row in csv.DictReader(file)
        ]
    for time, wh, values in _per_minute(samples):
        yield MeterReading(meter_id=device, kwh_consumed_ac=wh / _WH_PER_KWH, voltage=values["voltage"], timestamp=time)


def ev_vehicle(path: Path, device: DeviceId) -> Iterator[VehicleReading]:
    """The car's side: energy into the battery is the integral of voltage x current, negative while it drives.

    `timestamp` has whole seconds only, so the time within the hour is taken from `datetime` (MM:SS.f). Rows with
    blanks are left out, and the energy of a hole is that of the straight line across it.
    """
    with path.open(newline="") as file:
        samples = list(_integrated(_car_rows(file)))
    for time, wh, values in _per_minute(samples):
        yield VehicleReading(
            vehicle_id=device,
            soc=values["soc"],
            kwh_delivered_dc=wh / _WH_PER_KWH,
            battery_temp=values["temperature"],
            timestamp=time,
        )


def _car_rows(file: TextIO) -> Iterator[tuple[float, dict[str, float]]]:
    """The time of each whole row, by the charger's clock, and its numbers."""
    for row in csv.DictReader(file):
        if all(row.values()):
            minute, _, second = row.pop("datetime").partition(":")
            within_hour = int(minute) * 60 + float(second)
            coarse = int(row.pop("timestamp"))
            # The whole second says which hour it is; near its turn the two may differ by a moment.
            drift = (within_hour - coarse + 1800) % 3600 - 1800
            yield coarse + drift + CAR_CLOCK_BEHIND_S, {name: float(text) for name, text in row.items()}


def _integrated(rows: Iterable[tuple[float, dict[str, float]]]) -> Iterator[Sample]:
    """The trapezoidal rule over the power between consecutive rows."""
    energy_wh, before = 0.0, None
    for time_s, values in rows:
        power_w = values["voltage"] * values["current"]
        if before is not None:
            energy_wh += (power_w + before[1]) / 2 * (time_s - before[0]) / 3600
        before = time_s, power_w
        yield Sample(time_s, energy_wh, values)


def _per_minute(samples: Iterable[Sample]) -> Iterator[tuple[datetime, float, dict[str, float]]]:
    """One reading at the end of each minute that has samples: its energy since the last one, its newest values.

    Differences of one running register: their sum is the register's total, whatever the minutes.
    """
    counted_wh = 0.0
    for minute, group in itertools.groupby(samples, key=lambda s: math.floor(s.time_s / _MINUTE_S)):
        last = list(group)[-1]
        yield datetime.fromtimestamp((minute + 1) * _MINUTE_S, UTC), last.energy_wh - counted_wh, last.values
        counted_wh = last.energy_wh


def shift(readings: Iterable[Reading], end: datetime) -> list[Reading]:
    """The readings, all moved by one span of time such that the newest is at `end`."""
    recorded = list(readings)
    if not recorded:
        return []
    by = end - max(reading.timestamp for reading in recorded)
    return [reading.model_copy(update={"timestamp": reading.timestamp + by}) for reading in recorded]


def span(readings: Iterable[Reading]) -> timedelta:
    """The time from the oldest to the newest reading."""
    times = [reading.timestamp for reading in readings]
    return max(times) - min(times) if times else timedelta()


Converter = Callable[[Path, DeviceId], Iterator[Reading]]

CONVERTERS: dict[str, Converter] = {
    "csv": lambda path, _: canonical_csv(path),
    "ndjson": lambda path, _: canonical_ndjson(path),
    "uci": uci,
    "ev-charger": ev_charger,
    "ev-vehicle": ev_vehicle,
}
"""By the name of the form. The canonical forms name their devices themselves."""


def detect(path: Path) -> str:
    """Which form a file has, by its first line. Raises `NotARecording` when it is none that we know."""
    with path.open(errors="replace") as file:
        first = file.readline(4096).strip().lstrip("\ufeff")
    columns: list[Any] = next(csv.reader([first]), [])
    if first.startswith("{"):
        return "ndjson"
    if first.startswith("Date;Time;Global_active_power"):
        return "uci"
    if "charged_energy" in columns:
        return "ev-charger"
    if {"current", "voltage", "temperature"} <= set(columns):
        return "ev-vehicle"
    if {"vehicleId", "meterId"} & set(columns):
        return "csv"
    raise NotARecording(f"{path}: the first line is of no form that we know: {', '.join(CONVERTERS)}")
