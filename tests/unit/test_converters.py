"""Recordings become readings: each form's habits on made-up lines, the totals on the real files."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.reading import MeterReading, Reading, VehicleReading, device_id
from simulator.converters import (
    CAR_CLOCK_BEHIND_S,
    CONVERTERS,
    NotARecording,
    canonical_csv,
    canonical_ndjson,
    detect,
    ev_charger,
    ev_vehicle,
    shift,
    span,
    uci,
)
from tests.readings import SEED_METER, SEED_TIME, SEED_VEHICLE, meter, vehicle
from tests.recordings import recording

DEVICE = device_id("D_1")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recording"
    path.write_text(text)
    return path


def test_canonical_csv_is_read_with_its_other_columns_as_extra(tmp_path: Path) -> None:
    path = written(tmp_path, "meterId,timestamp,kwhConsumedAc,voltage,site\nM_1,2026-02-10T10:15:00Z,5.1,231.5,north\n")
    (reading,) = canonical_csv(path)
    assert isinstance(reading, MeterReading)
    assert (reading.meter_id, reading.kwh_consumed_ac, reading.timestamp) == ("M_1", 5.1, SEED_TIME)
    assert reading.extra == {"site": "north"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("M_1,2026-02-10T10:15:00Z,five,231.5", "recording:2: kwhConsumedAc: 'five' is not a number"),
        ("M_1,yesterday,5.1,231.5", "recording:2: timestamp: Input should be RFC 3339"),
        ("M_1,2026-02-10T10:15:00Z,5.1,2315", "recording:2: voltage: Input should be less than or equal to 1000"),
        ("M_1,2026-02-10T10:15:00Z,5.1", "recording:2: the row does not have as many fields"),
    ],
)
def test_canonical_csv_error_names_line_field_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(NotARecording, match=reason):
        list(canonical_csv(written(tmp_path, f"meterId,timestamp,kwhConsumedAc,voltage\n{row}\n")))


def test_canonical_ndjson_is_read(tmp_path: Path) -> None:
    first, second = canonical_ndjson(written(tmp_path, f"{SEED_VEHICLE.decode()}\n\n{SEED_METER.decode()}\n"))
    assert isinstance(first, VehicleReading)
    assert isinstance(second, MeterReading)


@pytest.mark.parametrize(
    ("line", "reason"), [("{", "recording:1: not JSON"), ("{}", "recording:1: either"), ("[]", "recording:1: either")]
)
def test_canonical_ndjson_error_names_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(NotARecording, match=reason):
        list(canonical_ndjson(written(tmp_path, line)))


def test_uci_is_local_time_and_mean_power(tmp_path: Path) -> None:
    head = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;a;b;c\n"
    rows = "16/12/2006;17:24:00;3.000;0.4;230.5;1;0;0;0 \r\n16/12/2006;17:25:00;?;?;?;?;?;?;\r\n"
    (reading,) = uci(written(tmp_path, head + rows), DEVICE)
    assert reading.timestamp == datetime(2006, 12, 16, 16, 24, tzinfo=UTC)
    assert (reading.kwh_consumed_ac, reading.voltage) == (0.05, 230.5)


def test_charger_reads_its_register_and_not_its_power(tmp_path: Path) -> None:
    head = "datetime,voltage,current,soc,power,charged_energy,datetime,timestamp,derivative,mean_derivative\n"
    rows = ["x,365,0,84,1116880241,0,x,60.0,,0", "x,366,0,84,9e9,500,x,119.9,,0", "x,367,0,84,9e9,1200,x,120.0,,0"]
    first, second = ev_charger(written(tmp_path, head + "\n".join(rows)), DEVICE)
    assert (first.timestamp, first.kwh_consumed_ac, first.voltage) == (datetime(1970, 1, 1, 0, 2, tzinfo=UTC), 0.5, 366)
    assert (second.timestamp.minute, second.kwh_consumed_ac) == (3, 0.7)


def test_car_is_integrated_over_its_true_time_and_blanks_are_left_out(tmp_path: Path) -> None:
    head = "datetime,timestamp,current,voltage,soc,temperature\n"
    rows = [
        "59:59.5,1684231199,-10,360,80,27",  # the hour turns between the two clocks
        "00:00.5,1684231200,-10,360,80,27",
        "00:01.0,1684231201,,,,",
        "00:10.5,1684231210,50,360,80,28",
    ]
    readings = list(ev_vehicle(written(tmp_path, head + "\n".join(rows)), DEVICE))
    expected_wh = (-3600 * 1 + (-3600 + 18000) / 2 * 10) / 3600
    assert math.isclose(sum(r.kwh_delivered_dc for r in readings), expected_wh / 1000)
    first_s = 1684231199.5 + CAR_CLOCK_BEHIND_S
    assert readings[0].timestamp.timestamp() == (first_s // 60 + 1) * 60
    assert readings[-1].battery_temp == 28


def test_shift_keeps_the_spacing_and_ends_where_asked() -> None:
    recorded: list[Reading] = [vehicle(at=SEED_TIME), meter(at=SEED_TIME + timedelta(minutes=90))]
    end = datetime(2026, 3, 1, tzinfo=UTC)
    moved = shift(recorded, end)
    assert [r.timestamp for r in moved] == [end - timedelta(minutes=90), end]
    assert span(moved) == timedelta(minutes=90)
    assert shift([], end) == []


def test_unknown_form_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotARecording, match="no form that we know"):
        detect(written(tmp_path, "hello\n"))


def test_uci_recording_has_its_published_total() -> None:
    path = recording("uci_household_power_1min.txt")
    assert detect(path) == "uci"
    readings = list(uci(path, DEVICE))
    assert len(readings) == 37_283
    assert round(math.fsum(r.kwh_consumed_ac for r in readings), 4) == 1063.8435
    assert (min(r.voltage for r in readings), max(r.voltage for r in readings)) == (226.32, 251.7)
    assert [r.timestamp for r in readings] == sorted({r.timestamp for r in readings})


def test_fast_charge_recordings_give_both_sides_of_one_session() -> None:
    charger_path, car_path = recording("ev_fast_charge_charger.csv"), recording("ev_fast_charge_vehicle.csv")
    assert (detect(charger_path), detect(car_path)) == ("ev-charger", "ev-vehicle")
    charger, car = list(ev_charger(charger_path, DEVICE)), list(ev_vehicle(car_path, DEVICE))
    ac = math.fsum(r.kwh_consumed_ac for r in charger)
    assert round(ac, 4) == 5.4436
    start, end = charger[0].timestamp, charger[-1].timestamp
    dc = math.fsum(r.kwh_delivered_dc for r in car if start <= r.timestamp <= end)
    assert 0.975 < dc / ac < 0.99


def test_every_form_has_a_converter() -> None:
    assert set(CONVERTERS) == {"csv", "ndjson", "uci", "ev-charger", "ev-vehicle"}
