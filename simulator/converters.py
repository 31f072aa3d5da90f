"""Recordings as readings, in the order of time. Pure but for reading the file.

`recordings` reads the forms that the project itself speaks. The others are public recordings, each with its own
habits, which the converters here know and name.
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
"""The car of the fast-charge recording is that far behind the charger, which keeps UTC."""

_MINUTE_S = 60
_WH_PER_KWH = 1000
_UCI_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d\d):(\d\d):(\d\d)", re.ASCII).fullmatch
_WITHIN_HOUR = re.compile(r"(\d\d):(\d\d(?:\.\d+)?)", re.ASCII).fullmatch


class Sample(NamedTuple):
    """One moment of a recording that is faster than a reading a minute, and its running register of energy."""

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
    """Asked for only here: a machine without time zones can still do all the rest."""
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

    Its column `power` is garbage, and the header names `datetime` twice; neither is used.
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

    `timestamp` has whole seconds only, so the time within the hour is taken from `datetime` (MM:SS.f). Rows with
    blanks are left out, and the energy of a hole is that of the straight line across it.
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
    """The time of each whole row, by the charger's clock, and its numbers."""
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
    # The whole second says which hour it is; near its turn the two may differ by a moment.
    drift = (within_hour - coarse + 1800) % 3600 - 1800
    return coarse + drift + CAR_CLOCK_BEHIND_S


def _integrated(moments: Iterable[tuple[float, dict[str, float]]]) -> Iterator[Sample]:
    """The trapezoidal rule over the power between consecutive moments."""
    energy_wh, before = 0.0, None
    for time_s, values in sorted(moments, key=lambda moment: moment[0]):
        power_w = values["voltage"] * values["current"]
        if before is not None:
            energy_wh += (power_w + before[1]) / 2 * (time_s - before[0]) / 3600
        before = time_s, power_w
        yield Sample(time_s, energy_wh, values)


def _per_minute(samples: Iterable[Sample]) -> Iterator[tuple[datetime, float, dict[str, float]]]:
    """One reading at the end of each minute that has samples: its energy since the last one, its newest values.

    Differences of one running register: their sum is what it counted from the first sample to the last, whatever
    the minutes.
    """
    ordered = sorted(samples, key=lambda sample: sample.time_s)
    counted_wh = ordered[0].energy_wh if ordered else 0.0
    for minute, group in itertools.groupby(ordered, key=lambda sample: math.floor(sample.time_s / _MINUTE_S)):
        *_, last = group
        yield datetime.fromtimestamp((minute + 1) * _MINUTE_S, UTC), last.energy_wh - counted_wh, last.values
        counted_wh = last.energy_wh


def shift(readings: Iterable[Reading], end: datetime) -> list[Reading]:
    """The readings, all moved by one span of time such that the newest is at `end`."""
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
"""By the name of the form. The canonical forms name their devices themselves."""


def detect(path: Path) -> str:
    """Which form a file has, by its first line. Raises `NotARecording` when it is none that we know."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(4096).strip()
    columns = set(next(csv.reader([first]), []))
    if first.startswith("{"):
        return "ndjson"
    if first.startswith("Date;Time;Global_active_power"):
        return "uci"
    # Before the public forms: a canonical file may have any other column as an extra one.
    if {"vehicleId", "meterId"} & columns:
        return "csv"
    if "charged_energy" in columns:
        return "ev-charger"
    if {"current", "voltage", "temperature"} <= columns:
        return "ev-vehicle"
    raise NotARecording(f"{path}: the first line is of no form that we know: {', '.join(CONVERTERS)}")
