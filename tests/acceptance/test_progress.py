"""Long commands in a terminal of 80 columns: they show how far they are, on stderr."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from bridge.formats.contract_json import encode
from local.platform import Platform
from mosquitto import provisioning
from mosquitto.directory import Directory
from tests.bridges import environment
from tests.readings import meter, minutes
from tests.terminal import COLUMNS, run


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A thousand readings of a vehicle and a meter, which the replay assigns to it."""
    path = tmp_path / "car.ndjson"
    end = datetime.now(UTC) - timedelta(minutes=5)
    path.write_bytes(b"".join(encode(reading) + b"\n" for reading in [*minutes("CAR", 999, end), meter("HOME", end)]))
    return path


def test_replay_and_verify_show_how_far_they_are(platform: Platform, recording: Path, tmp_path: Path) -> None:
    env = {**environment(), **platform.addresses}
    simulator, ledger = [sys.executable, "-m", "simulator"], str(tmp_path / "ledger")
    result, shown = run([*simulator, "replay", str(recording), "--via", "http", "--ledger", ledger], env)
    assert result.returncode == 0, result.stdout
    assert "of 1,000 readings sent" in shown.text
    assert "of 1,000" not in result.stdout
    assert "vehicle CAR: 999 readings" in result.stdout
    assert "assignments 1 of 1" in result.stdout
    result, shown = run([*simulator, "verify", ledger, "--figures", "1"], env)
    assert result.returncode == 0, result.stdout
    assert "readings compared" in shown.text
    assert "1000/1000" in shown.text or "0/1000" in shown.text
    assert "figures of vehicles" in shown.text
    assert "readings compared" not in result.stdout


@pytest.mark.parametrize(("kind", "option"), [("certificates", "--cert"), ("passwords", "--password")])
def test_provisioning_of_many_devices_shows_how_far_it_is(tmp_path: Path, kind: str, option: str) -> None:
    provisioning.initialise(Directory(tmp_path), ["localhost"])
    csv = tmp_path / "devices.csv"
    csv.write_text("id,kind\n" + "".join(f"EV_{n},vehicle\n" for n in range(40)))
    add = [sys.executable, "-m", "mosquitto", "device", "add", "--csv", str(csv), option, "--dir", str(tmp_path)]
    result, shown = run(add, environment())
    assert result.returncode == 0, shown.text
    assert kind in shown.text
    assert "/40" in shown.text
    assert all(len(line) <= COLUMNS for line in shown.lines)
    assert result.stdout.startswith("40 provisioned")


def test_replay_of_rejects_shows_how_far_it_is(platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    url = f"{platform.api.url}/v1/ingest"
    assert (
        httpx.post(url, headers=headers, content=b'[{"vehicleId": "EV_1"}, {"vehicleId": "EV_2"}]').status_code == 422
    )
    env = {**environment(), "FLEET_DATABASE_URL": platform.database_url}
    again = [sys.executable, "-m", "bridge", "rejected", "replay", "--reason", "invalid_field"]
    result, shown = run(again, env)
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2
    assert "rejected messages" in shown.text
    assert "/2" in shown.text


def test_nothing_is_shown_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    provisioning.initialise(Directory(tmp_path), ["localhost"])
    csv = tmp_path / "devices.csv"
    csv.write_text("id,kind\nEV_1,vehicle\n")
    add = [sys.executable, "-m", "mosquitto", "device", "add", "--csv", str(csv), "--dir", str(tmp_path)]
    result = subprocess.run(add, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    hint = "no broker with these files runs on this machine: they take effect at its start"
    assert result.stderr.splitlines() == [hint]
