"""A command whose database, broker or API is away says so in one line that names the host, and ends."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from local.mosquitto import Mosquitto
from local.ports import free_port
from mosquitto import provisioning
from mosquitto.device import device
from mosquitto.directory import Directory
from simulator.ledger_reader import read_ledger
from tests.until import wait_until

ROOT = Path(__file__).parents[2]


def environment(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings}


def run(*argv: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *argv]
    env = environment(**settings)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env, cwd=cwd)


@pytest.mark.parametrize(
    "command",
    [
        "bridge migrate",
        "bridge rejected list",
        "bridge rejected show 00000000-0000-0000-0000-000000000000",
        "bridge rejected replay --reason conflict",
        "api key list",
        "api key create x",
        "api key revoke x",
        "api key rotate x",
    ],
)
def test_command_whose_database_is_away_says_so_in_one_line(command: str) -> None:
    port = free_port()
    done = run(*command.split(), FLEET_DATABASE_URL=f"postgresql://nobody:secret@127.0.0.1:{port}/fleet")
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "ConnectionRefusedError" in line
    assert f'"database": "127.0.0.1:{port}"' in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("command", "server"),
    [
        (["run", "--vehicles", "2"], "broker 127.0.0.1:{port}"),
        (["run", "--vehicles", "2", "--via", "http", "--api-key", "fleet_x_y"], "API http://127.0.0.1:{port}"),
        (["replay", "house.csv"], "broker 127.0.0.1:{port}"),
    ],
)
def test_simulator_whose_server_is_away_says_so_and_ends(tmp_path: Path, command: list[str], server: str) -> None:
    port = free_port()
    (tmp_path / "house.csv").write_text("meterId,kwhConsumedAc,timestamp\nHOUSE,0.25,2026-02-10T00:00:00Z\n")
    urls = {"FLEET_MQTT_URL": f"mqtt://x:secret@127.0.0.1:{port}", "FLEET_API_URL": f"http://127.0.0.1:{port}"}
    done = run("simulator", *command, "--ledger", "ledger", cwd=tmp_path, **urls)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(f"cannot reach the {server.format(port=port)}: ")
    assert "Traceback" not in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_signal_ends_a_run_whose_broker_has_died(tmp_path: Path) -> None:
    server, ledger = Mosquitto(tmp_path / "broker"), tmp_path / "ledger"
    try:
        server.start()
        command = [sys.executable, "-m", "simulator", "run", "--vehicles", "20", "--ledger", str(ledger)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment(FLEET_MQTT_URL=server.url)
        ) as running:
            wait_until(lambda: ledger.exists() and b"P" in ledger.read_bytes()[2_000:], "readings are on their way")
            server.process.kill()
            running.send_signal(signal.SIGTERM)
            assert running.stdout is not None
            said = running.stdout.read()
            assert running.wait(timeout=45) == 1
    finally:
        server.stop()
    assert said.splitlines()[-1].startswith("stopped before all readings were acknowledged: ")
    assert not read_ledger(ledger).complete


def test_reload_command_that_fails_is_named_and_what_was_done_stays(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "broker")
    provisioning.initialise(directory, ["localhost"])
    provisioning.add_certificates(directory, [device("vehicle", "EV_1")], timedelta(days=1))
    revoke = ["mosquitto", "device", "revoke", "EV_1", "--dir", str(directory.root)]
    done = run(*revoke, "--reload-command", "false")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the change is saved, but the broker has not been told" in line
    assert '"revoked_at": null' not in run("mosquitto", "device", "list", "--dir", str(directory.root)).stdout


@pytest.mark.parametrize("content", [None, "", "mqtt://127.0.0.1:1"])
def test_broker_that_cannot_be_reached_for_a_revocation_is_named(tmp_path: Path, content: str | None) -> None:
    directory = Directory(tmp_path / "broker")
    provisioning.initialise(directory, ["localhost"])
    provisioning.add_certificates(directory, [device("vehicle", "EV_1")], timedelta(days=1))
    directory.control_url.unlink()
    if content is not None:
        directory.control_url.write_text(content)
    done = run("mosquitto", "device", "revoke", "EV_1", "--dir", str(directory.root), "--reload-command", "true")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert (content or str(directory.control_url)) in line
