"""A fleet with every fault is stored exactly, and `verify` detects every difference."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.platform import Platform
from local.ports import free_port
from simulator.findings import FAULTS
from simulator.ledger_reader import read_ledger
from tests.acceptance.simulation import counts, simulator
from tests.until import wait_until

EVERY_FAULT = (
    "--all-faults",
    "--malformed",
    "0.05",
    "--wrong-clock",
    "0.02",
    "--conflict",
    "0.02",
    "--offline",
    "0.02",
)
MIXED = (
    *("--profile", "real", "--registers", "0.5", "--sentinels", "0.3", "--counters-as-intervals", "0.1"),
    *("--partial", "0.3"),
)
FLEET = ("--vehicles", "20", "--minutes", "60", "--speed", "0", "--connections", "4")


@pytest.mark.parametrize("via", ["mqtt", "http", "both"])
def test_run_with_every_fault_is_verified(platform: Platform, tmp_path: Path, via: str) -> None:
    ledger = tmp_path / "ledger"
    options = ("--via", via, "--receipts", "1", "--name", f"{via}-", "--ledger", ledger)
    ran = simulator(platform, "run", *FLEET, *EVERY_FAULT, *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verified = simulator(platform, "verify", ledger)
    found = counts(verified)
    assert verified.returncode == 0, verified.stdout
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert found["readings in the history"] == 40 * 60
    assert found["vehicles of equal efficiency"] == 20
    assert found["rejects as expected"] > 100
    assert found["vehicles whose figures were compared"] == found["meters whose figures were compared"] == 20
    assert found["sessions compared"] > 10
    by_puback, by_answer = found["acknowledged by PUBACK"], found["acknowledged by HTTP answer"]
    assert by_puback + by_answer == found["items sent"]
    assert (by_puback > 0, by_answer > 0) == (via != "http", via != "mqtt")
    assert found["acknowledged by receipt"] == by_puback


@pytest.mark.parametrize("via", ["mqtt", "http"])
def test_mixed_fleet_of_real_devices_is_verified(platform: Platform, tmp_path: Path, via: str) -> None:
    ledger = tmp_path / "ledger"
    options = ("--via", via, "--receipts", "1", "--name", f"mixed-{via}-", "--seed", "3", "--ledger", ledger)
    ran = simulator(platform, "run", *FLEET, *MIXED, *EVERY_FAULT, *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verified = simulator(platform, "verify", ledger)
    found = counts(verified)
    assert verified.returncode == 0, verified.stdout
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert found["vehicles of equal efficiency"] == 20
    assert found["warnings as expected"] > 100
    assert found["registers as expected"] > 10
    warnings = ran.stdout.split("warnings reported ")[-1].split()[0]
    assert int(warnings.replace(",", "")) >= found["warnings as expected"]


@pytest.fixture(scope="module")
def mixed(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a fleet of real devices whose readings are stored as sent."""
    ledger = tmp_path_factory.mktemp("mixed") / "ledger"
    ran = simulator(platform, "run", *FLEET, *MIXED, "--name", "mixed-", "--no-assignments", "--ledger", ledger)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    return ledger


@pytest.fixture(scope="module")
def recorded(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a fleet whose readings are stored as sent."""
    ledger = tmp_path_factory.mktemp("recorded") / "ledger"
    ran = simulator(platform, "run", *FLEET, *EVERY_FAULT, "--receipts", "1", "--name", "tampered-", "--ledger", ledger)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    return ledger


VEHICLE_ROW = "vehicle_id = 'tampered-EV_00003' AND kwh_delivered_dc <> 0 ORDER BY ts LIMIT 1"
ONE_ROW = f"(vehicle_id, ts) = (SELECT vehicle_id, ts FROM vehicle_telemetry_history WHERE {VEHICLE_ROW})"
LOST = {"missing after PUBACK", "missing after receipt", "energy differs", "efficiency differs"}
TAMPERINGS = {
    "a reading is lost": (f"DELETE FROM vehicle_telemetry_history WHERE {ONE_ROW}", LOST),
    "a value is altered": (
        f"UPDATE vehicle_telemetry_history SET soc = soc + 0.01 WHERE {ONE_ROW}",
        {"different"},
    ),
    "energy is altered": (
        "UPDATE meter_telemetry_history SET kwh_consumed_ac = kwh_consumed_ac + 0.000001 WHERE (meter_id, ts) = "
        "(SELECT meter_id, ts FROM meter_telemetry_history WHERE meter_id = 'tampered-METER_00003' ORDER BY ts "
        "OFFSET 10 LIMIT 1)",
        {"different", "energy differs", "efficiency differs"},
    ),
    "a reading is invented": (
        "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, received_at, kwh_delivered_dc) SELECT vehicle_id, "
        f"ts + interval '1 microsecond', received_at, 0 FROM vehicle_telemetry_history WHERE {ONE_ROW}",
        {"invented"},
    ),
    "extra is invented": (
        f"UPDATE vehicle_telemetry_history SET extra = '{{\"a\": 1}}' WHERE {ONE_ROW}",
        {"different"},
    ),
    "a live row is older than the history": (
        "UPDATE vehicle_live_status SET ts = ts - interval '1 minute' WHERE vehicle_id = 'tampered-EV_00003'",
        {"live differs"},
    ),
    "a live row is gone": (
        "DELETE FROM meter_live_status WHERE meter_id = 'tampered-METER_00003'",
        {"live differs"},
    ),
    "a reject is lost": (
        "DELETE FROM rejected_message WHERE id = (SELECT id FROM rejected_message WHERE device LIKE 'tampered-%' "
        "LIMIT 1)",
        {"reject missing"},
    ),
    "a reject is kept twice": (
        "INSERT INTO rejected_message SELECT gen_random_uuid(), received_at, source, topic, device, reason, detail, "
        "payload FROM rejected_message WHERE device LIKE 'tampered-%' LIMIT 1",
        {"reject duplicated"},
    ),
    "a reject has another reason": (
        "UPDATE rejected_message SET reason = 'not_a_reading' WHERE id = (SELECT id FROM rejected_message "
        "WHERE device LIKE 'tampered-%' AND reason = 'conflict' LIMIT 1)",
        {"reject missing", "reject unexpected"},
    ),
    "a meter is given to another vehicle": (
        "UPDATE meter_assignment SET vehicle_id = 'somebody-else' WHERE (meter_id, valid_from) = "
        "(SELECT meter_id, valid_from FROM meter_assignment WHERE vehicle_id = 'tampered-EV_00003' "
        "ORDER BY valid_from LIMIT 1)",
        {"efficiency differs"},
    ),
}
NEWEST_REGISTER = (
    "(meter_id, ts) = (SELECT meter_id, ts FROM meter_telemetry_history WHERE meter_id LIKE 'mixed-METER%' "
    "AND kwh_import_register IS NOT NULL ORDER BY meter_id, ts DESC LIMIT 1)"
)
REFUSED = (
    "(vehicle_id, ts) = (SELECT vehicle_id, ts FROM vehicle_telemetry_history WHERE vehicle_id LIKE 'mixed-EV%' "
    "AND extra ? 'refused' ORDER BY ts LIMIT 1)"
)
MIXED_TAMPERINGS = {
    "a register is altered": (
        f"UPDATE meter_telemetry_history SET kwh_import_register = kwh_import_register + 1 WHERE {NEWEST_REGISTER}",
        {"different", "register differs", "live differs"},
    ),
    "a refused original is lost": (
        f"UPDATE vehicle_telemetry_history SET extra = NULL WHERE {REFUSED}",
        {"different"},
    ),
    "a last known value is lost": (
        "UPDATE vehicle_live_status SET soc = NULL WHERE vehicle_id = (SELECT min(vehicle_id) FROM vehicle_live_status "
        "WHERE vehicle_id LIKE 'mixed-EV%' AND soc IS NOT NULL)",
        {"live differs"},
    ),
}
RESTORED = (
    "vehicle_telemetry_history",
    "meter_telemetry_history",
    "vehicle_live_status",
    "meter_live_status",
    "rejected_message",
    "meter_assignment",
    "device",
)


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_verify_reports_exactly_what_was_tampered_with(platform: Platform, recorded: Path, tampering: str) -> None:
    statement, expected = TAMPERINGS[tampering]
    found = tampered(platform, recorded, statement)
    assert found == {name: int(name in expected) for name in FAULTS}


@pytest.mark.parametrize("tampering", MIXED_TAMPERINGS)
def test_verify_reports_what_was_tampered_with_in_a_mixed_fleet(
    platform: Platform, mixed: Path, tampering: str
) -> None:
    statement, expected = MIXED_TAMPERINGS[tampering]
    found = tampered(platform, mixed, statement)
    assert found == {name: int(name in expected) for name in FAULTS}


@pytest.fixture(scope="module")
def measured(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a fleet of real devices with assignments, whose figures are as they should be."""
    ledger = tmp_path_factory.mktemp("measured") / "ledger"
    options = ("--vehicles", "8", "--minutes", "200", "--speed", "0", "--name", "measured-", "--ledger", ledger)
    ran = simulator(platform, "run", *options, "--registers", "0.7", "--partial", "0.3", "--seed", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verified = simulator(platform, "verify", ledger, "--figures", "-1")
    assert verified.returncode == 0, verified.stdout
    assert counts(verified)["vehicles whose figures were compared"] == 8
    return ledger


OLDEST_RISE = (
    "(meter_id, ts) = (SELECT meter_id, ts FROM (SELECT *, kwh_import_register - lag(kwh_import_register) OVER "
    "(PARTITION BY meter_id ORDER BY ts) AS rise FROM meter_telemetry_history WHERE meter_id LIKE 'measured-%') t "
    "WHERE rise > 0.01 ORDER BY meter_id, ts LIMIT 1)"
)
WRONG_FIGURES = {
    "the last reading of a register is removed": (
        f"DELETE FROM meter_telemetry_history WHERE {NEWEST_REGISTER.replace('mixed', 'measured')}",
        "totalKwhConsumedAc",
    ),
    "a register is reset": (
        f"UPDATE meter_telemetry_history SET kwh_import_register = 0 WHERE {OLDEST_RISE}",
        "totalKwhConsumedAc",
    ),
    "a register jumps": (
        f"UPDATE meter_telemetry_history SET kwh_import_register = kwh_import_register + 9000 WHERE {OLDEST_RISE}",
        "totalKwhConsumedAc",
    ),
    "energy is altered": (
        "UPDATE vehicle_telemetry_history SET kwh_delivered_dc = kwh_delivered_dc + 0.000001 WHERE (vehicle_id, ts) = "
        "(SELECT vehicle_id, ts FROM vehicle_telemetry_history WHERE vehicle_id LIKE 'measured-%' "
        "AND kwh_charged_register IS NULL AND kwh_delivered_dc > 0 ORDER BY ts OFFSET 40 LIMIT 1)",
        "totalKwhDeliveredDc",
    ),
    "a meter is given to nobody": (
        "UPDATE meter_assignment SET vehicle_id = NULL WHERE vehicle_id = 'measured-EV_00003'",
        "totalKwhConsumedAc",
    ),
    "silence is filled": (
        "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, kwh_delivered_dc) SELECT vehicle_id, "
        "min(ts) - interval '1 minute', 0 FROM vehicle_telemetry_history WHERE vehicle_id LIKE 'measured-%' GROUP BY 1",
        "dcCoverage",
    ),
    "a rated power is declared": (
        "INSERT INTO device (kind, id, rated_kw) SELECT 'meter', meter_id, 0.01 FROM meter_live_status "
        "WHERE meter_id LIKE 'measured-%'",
        "totalKwhConsumedAc",
    ),
}


MARKED = "; ".join(
    f"INSERT INTO {kind}_quarter_dirty SELECT DISTINCT {kind}_id, date_bin('15 minutes', ts, '1970-01-01 00:00+00') "
    f"FROM {kind}_telemetry_history WHERE {kind}_id LIKE 'measured-%'"
    for kind in ("vehicle", "meter")
)
"""As a writer marks late readings: the keeper of the platform may have summarized them."""


@pytest.mark.parametrize("change", WRONG_FIGURES)
def test_verify_reports_wrong_figures_by_device_and_name(platform: Platform, measured: Path, change: str) -> None:
    statement, figure = WRONG_FIGURES[change]
    verified = verified_while(platform, f"{statement}; {MARKED}", measured, "--figures", "-1")
    assert verified.returncode == 1, verified.stdout
    assert counts(verified)["figure differs"] > 0
    assert re.search(rf"measured-EV_\d+ performance \S+/\S+, {figure}: \S+, expected \S+", shown(verified))


def shown(verified: "subprocess.CompletedProcess[str]") -> str:
    """The examples of the table, whose lines are broken."""
    return " ".join(line.split("│")[3].strip() for line in verified.stdout.splitlines() if line.startswith("│"))


def test_verify_without_an_answer_of_the_api_cannot_compare(platform: Platform, measured: Path) -> None:
    refused = simulator(platform, "verify", measured, "--api-key", "fleet_nobody_nothing")
    assert refused.returncode == 2
    assert "401" in refused.stdout


def tampered(platform: Platform, ledger: Path, statement: str) -> dict[str, int]:
    """What `verify` finds in the database while it is altered by this statement."""
    verified = verified_while(platform, statement, ledger, "--figures", "0")
    assert verified.returncode == 1, verified.stdout
    found = counts(verified)
    return {name: found[name] for name in FAULTS}


def verified_while(
    platform: Platform, statement: str, ledger: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    """The result of `verify` while the database is altered by this statement."""
    saved = "; ".join(f"CREATE TABLE saved_{t} AS SELECT * FROM {t}" for t in RESTORED)
    as_superuser(platform, saved)
    try:
        as_superuser(platform, statement)
        return simulator(platform, "verify", ledger, "--wait", "0", *options)
    finally:
        restored = "; ".join(
            f"TRUNCATE {t}; INSERT INTO {t} SELECT * FROM saved_{t}; DROP TABLE saved_{t}" for t in RESTORED
        )
        as_superuser(platform, restored)


def test_verify_sees_a_row_that_is_there_twice(platform: Platform, recorded: Path) -> None:
    """The key forbids it, so the proof needs a table without the key."""
    partition = platform.postgres.sql(
        f"SELECT tableoid::regclass FROM vehicle_telemetry_history WHERE {VEHICLE_ROW}",
        platform.database,
    )
    as_superuser(
        platform,
        "CREATE TABLE kept AS SELECT * FROM vehicle_telemetry_history;"
        "ALTER TABLE vehicle_telemetry_history DROP CONSTRAINT vehicle_telemetry_history_pkey;"
        f"INSERT INTO {partition} SELECT * FROM {partition} WHERE {VEHICLE_ROW}",
    )
    try:
        verified = simulator(platform, "verify", recorded, "--wait", "0")
    finally:
        as_superuser(
            platform,
            "TRUNCATE vehicle_telemetry_history; INSERT INTO vehicle_telemetry_history SELECT * FROM kept;"
            "DROP TABLE kept; ALTER TABLE vehicle_telemetry_history ADD PRIMARY KEY (vehicle_id, ts) "
            "INCLUDE (kwh_delivered_dc, battery_temp)",
        )
    assert verified.returncode == 1
    assert counts(verified)["duplicated"] == 1


@pytest.mark.parametrize("profile", ["plain", "real"])
def test_killed_simulator_leaves_a_ledger_that_can_be_verified(
    platform: Platform, tmp_path: Path, profile: str
) -> None:
    ledger = tmp_path / "ledger"
    env = {**os.environ, **platform.addresses}
    command = [sys.executable, "-m", "simulator", "run", "--vehicles", "200", "--minutes", "1000", "--speed", "0"]
    command += ["--ledger", str(ledger), "--name", f"killed-{profile}-", "--receipts", "0.5"]
    command += ["--profile", profile]
    running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    wait_until(lambda: ledger.exists() and ledger.stat().st_size > 3_000_000, "thousands of readings are on their way")
    running.send_signal(signal.SIGKILL)
    running.wait()
    content = read_ledger(ledger)
    assert len(content) > 5_000
    assert not content.complete
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    assert "no simulated truth" in verified.stdout


def test_ctrl_c_ends_a_run_in_good_order(platform: Platform, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    env = {**os.environ, **platform.addresses}
    command = [sys.executable, "-m", "simulator", "run", "--vehicles", "200", "--ledger", str(ledger)]
    running = subprocess.Popen([*command, "--name", "stopped-"], env=env, stdout=subprocess.DEVNULL)
    wait_until(lambda: ledger.exists() and ledger.stat().st_size > 9_000, "the first readings are on their way")
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 0
    assert read_ledger(ledger).complete
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize(("via", "part"), [("mqtt", "broker"), ("mqtt", "bridge"), ("http", "api")])
def test_run_survives_a_restart_of_what_it_talks_to(platform: Platform, tmp_path: Path, via: str, part: str) -> None:
    """Nothing acknowledged is lost, unacknowledged messages are repeated, and the truth is complete in the end."""
    ledger = tmp_path / "ledger"
    env = {**os.environ, **platform.addresses}
    command = [sys.executable, "-m", "simulator", "run", "--vehicles", "100", "--minutes", "150", "--speed", "0"]
    command += ["--via", via, "--all-faults", "--name", f"restart-{part}-", "--ledger", str(ledger)]
    running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    wait_until(lambda: ledger.exists() and ledger.stat().st_size > 500_000, "thousands of readings are on their way")
    restarted = getattr(platform, part)
    restarted.stop()
    assert running.poll() is None, "the run was over before the restart"
    restarted.start()
    assert running.wait(timeout=90) == 0
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    assert counts(verified)["readings in the history"] == 200 * 150


def test_verify_of_a_ledger_in_which_nothing_was_sent_proves_nothing(platform: Platform, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ran = simulator(platform, "run", "--minutes", "1", "--speed", "0", "--vehicles", "0", "--ledger", ledger)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert simulator(platform, "verify", ledger).returncode == 1


def as_superuser(platform: Platform, statements: str) -> None:
    """Change rows with the triggers disabled that forbid it."""
    platform.postgres.sql(f"SET session_replication_role = replica; {statements}", platform.database)


def test_key_that_the_api_refuses_is_reported(platform: Platform, tmp_path: Path) -> None:
    options = ("--vehicles", "1", "--minutes", "1", "--speed", "0", "--ledger", tmp_path / "ledger")
    ran = simulator(platform, "run", *options, "--api-key", "fleet_nobody_nothing")
    assert ran.returncode == 1
    assert "401" in ran.stdout
    assert "TaskGroup" not in ran.stdout + ran.stderr


def test_unavailable_broker_is_reported(platform: Platform, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "simulator", "run", "--vehicles", "1", "--ledger", str(tmp_path / "ledger")]
    argv += ["--mqtt-url", f"mqtt://x:y@127.0.0.1:{free_port()}", "--no-assignments"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ) as running:
        assert running.stdout is not None
        assert any("retrying: broker 127.0.0.1:" in line for line in running.stdout)  # otherwise the loop does not end
        running.kill()
