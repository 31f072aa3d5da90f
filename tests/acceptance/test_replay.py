"""Replay of recordings with the whole platform: the database contains their exact totals."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.platform import Platform
from tests.acceptance.simulation import counts, simulator
from tests.recordings import recording

CSV = """meterId,kwhConsumedAc,voltage,timestamp
HOUSE,0.25,230.5,{0}
HOUSE,0.5,231,{1}
"""
NDJSON = """{{"vehicleId": "CAR", "soc": 50, "kwhDeliveredDc": 0.2, "batteryTemp": 20, "timestamp": "{0}", "fw": "7"}}
{{"vehicleId": "CAR", "soc": 51, "kwhDeliveredDc": 0.4, "batteryTemp": 21, "timestamp": "{1}"}}
"""


def _verified(platform: Platform, ledger: Path) -> dict[str, int]:
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    return counts(verified)


def _written(folder: Path, begin: datetime) -> tuple[Path, Path]:
    times = [(begin + timedelta(minutes=n)).isoformat() for n in range(2)]
    house, car = folder / "house.csv", folder / "car.ndjson"
    house.write_text(CSV.format(*times))
    car.write_text(NDJSON.format(*times))
    return house, car


@pytest.mark.parametrize("via", ["mqtt", "http"])
def test_household_is_stored_to_the_last_digit(platform: Platform, tmp_path: Path, via: str) -> None:
    file = recording("uci_household_power_1min.txt")
    ledger = tmp_path / "ledger"
    replayed = simulator(
        platform, "replay", file, *("--via", via, "--name", f"{via}-", "--http-batch", "5000", "--ledger", ledger)
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "37,283 readings, 1063.8435 kWh" in replayed.stdout
    assert _verified(platform, ledger)["readings in the history"] == 37_283
    of_this_run = f"FROM meter_telemetry_history WHERE meter_id = '{via}-uci_household_power_1min'"
    stored = platform.postgres.sql(
        "SELECT count(*), round(sum(kwh_consumed_ac::numeric), 4), round(sum(kwh_consumed_ac)::numeric, 4), "
        f"min(voltage), max(voltage) {of_this_run}",
        platform.database,
    )
    assert stored == "37283|1063.8435|1063.8435|226.32|251.7"


def test_both_sides_of_a_fast_charge_give_its_efficiency(platform: Platform, tmp_path: Path) -> None:
    files = recording("ev_fast_charge_charger.csv"), recording("ev_fast_charge_vehicle.csv")
    ledger = tmp_path / "ledger"
    replayed = simulator(platform, "replay", *files, "--ledger", ledger)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "meter ev_fast_charge_charger: 21 readings, 5.4436 kWh" in replayed.stdout
    efficiency = replayed.stdout.split(" = ")[-1]
    assert float(efficiency) == pytest.approx(0.98, abs=0.005)
    assert _verified(platform, ledger)["vehicles of equal efficiency"] == 1
    charger = platform.postgres.sql(
        "SELECT round(sum(kwh_consumed_ac::numeric), 4) FROM meter_telemetry_history "
        "WHERE meter_id = 'ev_fast_charge_charger'",
        platform.database,
    )
    assert charger == "5.4436"


def test_shifted_recording_ends_now_with_its_spacing_and_extras(platform: Platform, tmp_path: Path) -> None:
    files = _written(tmp_path, datetime(2019, 5, 1, 12, tzinfo=UTC))
    replayed = simulator(platform, "replay", *files, "--ledger", tmp_path / "ledger")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "efficiency while the meter counted: 0.6000 / 0.7500 kWh = 0.8000" in replayed.stdout
    assert _verified(platform, tmp_path / "ledger")["readings in the history"] == 4
    stored = platform.postgres.sql(
        "SELECT max(ts) - min(ts), max(ts) BETWEEN now() - interval '5 minutes' AND now(), min(extra::text) "
        "FROM vehicle_telemetry_history WHERE vehicle_id = 'CAR'",
        platform.database,
    )
    assert stored == '00:01:00|t|{"fw": "7"}'


def test_recording_with_any_of_the_measures_is_stored_as_it_is(platform: Platform, tmp_path: Path) -> None:
    rows = ["100.5,230.5", "100.75,", ",231", "101,"]
    times = [f"2019-05-01T12:0{n}:00Z" for n in range(4)]
    lines = [f"REGISTERED,{at},{row}" for at, row in zip(times, rows, strict=True)]
    file = tmp_path / "registered.csv"
    file.write_text("\n".join(["meterId,timestamp,kwhImportRegister,voltage", *lines]))
    assert simulator(platform, "replay", file, "--ledger", tmp_path / "ledger").returncode == 0
    found = _verified(platform, tmp_path / "ledger")
    assert (found["readings in the history"], found["registers as expected"]) == (4, 1)
    live = platform.postgres.sql(
        "SELECT kwh_import_register, voltage, kwh_consumed_ac FROM meter_live_status WHERE meter_id = 'REGISTERED'",
        platform.database,
    )
    assert live == "101|231|"


def test_kept_times_stay_as_recorded(platform: Platform, tmp_path: Path) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(days=20)
    files = _written(tmp_path, begin)
    options = ("--times", "keep", "--speed", "30", "--ledger", tmp_path / "ledger")
    assert simulator(platform, "replay", *files, *options).returncode == 0
    assert _verified(platform, tmp_path / "ledger")["readings in the history"] == 4
    assert (
        platform.postgres.sql(
            f"SELECT count(*) FROM meter_telemetry_history WHERE meter_id = 'HOUSE' AND ts = '{begin.isoformat()}'",
            platform.database,
        )
        == "1"
    )


def test_kept_times_out_of_the_window_are_rejected_and_verify_says_so(platform: Platform, tmp_path: Path) -> None:
    files = _written(tmp_path, datetime(2019, 5, 1, 12, tzinfo=UTC))
    options = ("--times", "keep", "--ledger", tmp_path / "ledger")
    assert simulator(platform, "replay", *files, *options).returncode == 0
    verified = simulator(platform, "verify", tmp_path / "ledger", "--wait", "1")
    assert verified.returncode == 1
    assert counts(verified)["missing after PUBACK"] == 4
    assert counts(verified)["reject unexpected"] == 4


def test_file_that_is_no_recording_is_refused_by_name(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see\n")
    refused = simulator(platform, "replay", tmp_path / "notes.txt", "--ledger", tmp_path / "ledger")
    assert refused.returncode == 1
    assert "notes.txt" in refused.stdout
    assert not (tmp_path / "ledger").exists()
