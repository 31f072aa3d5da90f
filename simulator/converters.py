"""Converts recordings to readings in the order of time. Pure except for reading the file.

`recordings` reads the project's own formats. The others are public recordings, whose peculiarities are handled and
documented in the converters of this module.
"""

import csv
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.contract import METER, VEHICLE
from bridge.reading import DeviceId, Reading, format_timestamp
from simulator.recordings import (
    NotARecording,
    Row,
    canonical_csv,
    canonical_ndjson,
    checked,
    number,
    rows,
    text,
)

CAR_CLOCK_BEHIND_S = 7197.7
"""Offset of the vehicle's clock in the fast-charge recording behind the charger's, which is UTC."""

_MINUTE_S = 60
_WH_PER_KWH = 1000
_UCI_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d\d):(\d\d):(\d\d)", re.ASCII).fullmatch
_WITHIN_HOUR = re.compile(r"(\d\d):(\d\d(?:\.\d+)?)", re.ASCII).fullmatch


class Sample(NamedTuple):
    """A sample of a recording with more than one sample a minute, and its cumulative energy."""

    time_s: float
    energy_wh: float
    values: dict[str, float]


def uci(path: Path, device: DeviceId) -> Iterator[Reading]:
    """UCI "Individual household electric power consumption": mean kW of a minute, local time of Paris.

    Minutes without a measurement (`?`) are left out.
    """
    zone = _paris(path)
    for where, row in rows(path, delimiter=";"):
        if row.get("Global_active_power") != "?":
            fields = {
                "meterId": device,
                "kwhConsumedAc": number(where, row, "Global_active_power") / 60,
                "voltage": number(where, row, "Voltage"),
                "timestamp": format_timestamp(_uci_time(where, row, zone)),
            }
            yield checked(where, METER, fields)


def _paris(path: Path) -> ZoneInfo:
    """Loaded on first use, so that the other formats work on a machine without time zone data."""
    try:
        return ZoneInfo("Europe/Paris")
    except ZoneInfoNotFoundError:
        raise NotARecording(f"{path}: its local time needs the time zone Europe/Paris: pip install tzdata") from None


def _uci_time(where: str, row: Row, zone: ZoneInfo) -> datetime:
    written = f"{text(where, row, 'Date')} {text(where, row, 'Time')}"
    match = _UCI_TIME(written)
    if match is None:
        raise NotARecording(f"{where}: Date, Time: {written!r} is not of the form 31/12/2006 23:59:00")
    day, month, year, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    except ValueError as error:
        raise NotARecording(f"{where}: Date, Time: {written!r}: {error}") from None


def ev_charger(path: Path, device: DeviceId) -> Iterator[Reading]:
    """The charger's side of a fast charge: energy from the differences of its register, ten rows a second.

    Its column `power` is invalid, and the header has `datetime` twice; neither is used.
    """
    samples = (
        Sample(
            number(where, row, "timestamp"),
            number(where, row, "charged_energy"),
            {"voltage": number(where, row, "voltage")},
        )
        for where, row in rows(path)
    )
    for time, wh, values in _per_minute(samples):
        fields = {"meterId": device, "kwhConsumedAc": wh / _WH_PER_KWH, **values, "timestamp": format_timestamp(time)}
        yield checked(f"{path}: the minute to {time}", METER, fields)


def ev_vehicle(path: Path, device: DeviceId) -> Iterator[Reading]:
    """The car's side: energy into the battery is the integral of voltage x current, negative while it drives.

    `timestamp` has whole seconds only, so the time within the hour is read from `datetime` (MM:SS.f). Rows with
    blanks are skipped; power is interpolated linearly across the gap.
    """
    for time, wh, values in _per_minute(_integrated(_car_rows(path))):
        fields = {
            "vehicleId": device,
            "soc": values["soc"],
            "kwhDeliveredDc": wh / _WH_PER_KWH,
            "batteryTemp": values["temperature"],
            "timestamp": format_timestamp(time),
        }
        yield checked(f"{path}: the minute to {time}", VEHICLE, fields)


def _car_rows(path: Path) -> Iterator[tuple[float, dict[str, float]]]:
    """The time of each complete row, by the charger's clock, and its numbers."""
    for where, row in rows(path):
        if all(row.values()):
            names = ("current", "voltage", "soc", "temperature")
            yield _car_time(where, row), {name: number(where, row, name) for name in names}


def _car_time(where: str, row: Row) -> float:
    written = text(where, row, "datetime")
    match = _WITHIN_HOUR(written)
    if match is None:
        raise NotARecording(f"{where}: datetime: {written!r} is not of the form MM:SS.f")
    within_hour, coarse = int(match[1]) * 60 + float(match[2]), number(where, row, "timestamp")
    # The full second determines the hour; near the change of the hour the two columns may differ slightly.
    drift = (within_hour - coarse + 1800) % 3600 - 1800
    return coarse + drift + CAR_CLOCK_BEHIND_S


def _integrated(moments: Iterable[tuple[float, dict[str, float]]]) -> Iterator[Sample]:
    """The trapezoidal rule over the power of consecutive samples."""
    energy_wh, before = 0.0, None
    for time_s, values in sorted(moments, key=lambda moment: moment[0]):
        power_w = values["voltage"] * values["current"]
        if before is not None:
            energy_wh += (power_w + before[1]) / 2 * (time_s - before[0]) / 3600
        before = time_s, power_w
        yield Sample(time_s, energy_wh, values)


def _per_minute(samples: Iterable[Sample]) -> Iterator[tuple[datetime, float, dict[str, float]]]:
    """One reading at the end of each minute that has samples: its energy since the last one, its newest values.

    The energies are differences of one cumulative value: their sum is the total from the first sample to the last.
    """
    ordered = sorted(samples, key=lambda sample: sample.time_s)
    counted_wh = ordered[0].energy_wh if ordered else 0.0
    for minute, group in itertools.groupby(ordered, key=lambda sample: math.floor(sample.time_s / _MINUTE_S)):
        *_, last = group
        yield datetime.fromtimestamp((minute + 1) * _MINUTE_S, UTC), last.energy_wh - counted_wh, last.values
        counted_wh = last.energy_wh


def shift(readings: Iterable[Reading], end: datetime) -> list[Reading]:
    """The readings, all shifted by the same time so that the newest is at `end`."""
    recorded = list(readings)
    if not recorded:
        return []
    by = end - max(each.timestamp for each in recorded)
    return [each.changed(at=each.timestamp + by) for each in recorded]


Converter = Callable[[Path, DeviceId], Iterator[Reading]]

CONVERTERS: dict[str, Converter] = {
    "csv": lambda path, _: canonical_csv(path),
    "ndjson": lambda path, _: canonical_ndjson(path),
    "uci": uci,
    "ev-charger": ev_charger,
    "ev-vehicle": ev_vehicle,
}
"""By the name of the format. The project's own formats contain device ids."""


def detect(path: Path) -> str:
    """The format of a file, detected from its first line. Raises `NotARecording` for an unknown one."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(4096).strip()
    columns = set(next(csv.reader([first]), []))
    if first.startswith("{"):
        return "ndjson"
    if first.startswith("Date;Time;Global_active_power"):
        return "uci"
    # Checked before the public formats, because a file in the project's CSV may have any column as an extra one.
    if {"vehicleId", "meterId"} & columns:
        return "csv"
    if "charged_energy" in columns:
        return "ev-charger"
    if {"current", "voltage", "temperature"} <= columns:
        return "ev-vehicle"
    raise NotARecording(f"{path}: unknown format; supported: {', '.join(CONVERTERS)}")
