"""`make up`: its file appears when it is ready, the seed's readings are stored and returned, and all servers stop."""

import contextlib
import fcntl
import json
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.acceptance.up import PORTS, Up, alive, killed, ready, shell
from tests.mqtt_devices import connected, with_certificate, with_password
from tests.until import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    platform = Up(tmp_path / "local")
    yield platform
    if platform.runs:
        platform.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running platform for the tests that do not stop it."""
    platform = Up(tmp_path_factory.mktemp("up") / "local")
    platform.run()
    platform.until_ready()
    yield platform
    platform.stop(signal.SIGTERM)


def test_seed_payloads_come_back_through_live_history_and_analytics(running: Up) -> None:
    env = running.until_ready()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    vehicle = {"vehicleId": "EV_002", "soc": 72.5, "kwhDeliveredDc": 4.25, "batteryTemp": 38.6, "timestamp": now}
    meter = {"meterId": "METER_001", "kwhConsumedAc": 5.10, "voltage": 231.5, "timestamp": now}
    bearer = '-H "Authorization: Bearer $FLEET_API_KEY"'
    curl = f"curl -sS --fail-with-body {bearer}"
    assignment = "$FLEET_API_URL/v1/meters/METER_001/assignments/2026-01-01T00:00:00Z"
    shell(
        f"""{curl} -X PUT {assignment} -H 'Content-Type: application/json' -d '{{"vehicleId": "EV_002"}}'""",
        running.env,
    )
    topic = "$FLEET_MQTT_URL/fleet/vehicle/EV_002/telemetry"
    shell(f"mosquitto_pub -V 5 -q 1 -L {topic} -m {shlex.quote(json.dumps(vehicle))}", running.env)
    receipt = shell(
        f"{curl} $FLEET_API_URL/v1/ingest -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(meter))}",
        running.env,
    )
    assert json.loads(receipt) == {"stored": 1, "duplicates": 0, "rejected": []}
    headers = {"Authorization": f"Bearer {env['FLEET_API_KEY']}"}
    with httpx.Client(base_url=env["FLEET_API_URL"], headers=headers) as client:
        wait_until(lambda: client.get("/v1/live/vehicles/EV_002").status_code == 200, "the vehicle is live")
        live = client.get("/v1/live/vehicles/EV_002").json()
        assert vehicle.items() <= live.items()
        assert meter.items() <= client.get("/v1/live/meters/METER_001").json().items()
        (row,) = client.get("/v1/history/vehicles/EV_002").json()["items"]
        assert {k: v for k, v in vehicle.items() if k != "vehicleId"}.items() <= row.items()
        answer = client.get("/v1/analytics/performance/EV_002").json()
    assert answer["totalKwhDeliveredDc"] == 4.25
    assert answer["totalKwhConsumedAc"] == pytest.approx(5.10)
    assert answer["efficiency"] == pytest.approx(4.25 / 5.10)
    assert answer["avgBatteryTemp"] == pytest.approx(38.6)


def test_commands_of_the_readme_send_readings_and_read_them_back(running: Up) -> None:
    text = (ROOT / "README.md").read_text().replace("EV_002", "README_1").replace("METER_001", "README_2")
    section = text.split("## The first readings")[1].split("## ")[0]
    load, send_mqtt, send_http, read = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    assert load.lstrip().startswith("set -a; . .local/env; set +a;")
    shell(send_mqtt, running.env)
    assert json.loads(shell(send_http, running.env)) == {"stored": 1, "duplicates": 0, "rejected": []}
    wait_until(lambda: '"soc":72.5' in shell(read, running.env), "the vehicle's reading is live")
    answers = shell(read, running.env)
    assert '"kwhConsumedAc":5.1' in answers
    assert '"totalKwhDeliveredDc":4.25' in answers


def assert_stops(up: Up, number: signal.Signals) -> None:
    servers = up.servers()
    assert len(servers) >= 4
    assert up.stop(number) == 0, up.output.read_text()
    assert not alive(servers)
    assert not up.env.exists()


def test_signal_while_it_starts_stops_what_has_started(up: Up) -> None:
    popen = up.run()
    log = up.directory / "logs" / "postgres.log"
    wait_until(lambda: log.exists() and "ready to accept" in log.read_text(), "PostgreSQL is up")
    servers = up.servers()
    popen.send_signal(signal.SIGINT)
    assert popen.wait(60) == 0, up.output.read_text()
    assert not alive(servers)
    assert not up.env.exists()


def test_killed_platform_leaves_no_server_and_starts_again_on_its_data(up: Up) -> None:
    popen = up.run()
    env = up.until_ready()
    headers = {"Authorization": f"Bearer {env['FLEET_API_KEY']}"}
    now = datetime.now(UTC).isoformat()
    reading = {"meterId": "METER_001", "kwhConsumedAc": 5.1, "voltage": 231.5, "timestamp": now}
    assert httpx.post(f"{env['FLEET_API_URL']}/v1/ingest", json=reading, headers=headers).status_code == 201
    servers = up.servers()
    popen.kill()
    popen.wait()
    up.env.unlink()  # the killed run could not remove it; another test shows that the next one does
    started = time.monotonic()
    up.run()  # immediately, while the old servers are still ending
    again = up.until_ready()
    assert time.monotonic() - started < 30
    assert not alive(servers)
    assert again == env, "the same addresses, the same key"
    live = httpx.get(f"{env['FLEET_API_URL']}/v1/live/meters/METER_001", headers=headers)
    assert live.json()["kwhConsumedAc"] == 5.1
    assert up.stop() == 0


def test_file_of_a_killed_run_is_gone_before_the_next_one_starts_a_server(up: Up) -> None:
    up.directory.mkdir()
    up.env.write_text("FLEET_API_URL=http://127.0.0.1:1\n")
    popen = up.run()
    wait_until((up.directory / "logs").exists, "the first server starts")
    assert not up.env.exists()
    popen.send_signal(signal.SIGTERM)
    assert popen.wait(60) == 0


def test_second_platform_in_the_same_directory_says_that_it_runs(up: Up) -> None:
    up.directory.mkdir()
    with (up.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert up.run().wait(30) == 2
    (line,) = up.output.read_text().splitlines()
    assert "is already running" in line
    assert str(up.directory) in line


def test_given_ports_that_are_taken_are_all_named(up: Up) -> None:
    with contextlib.ExitStack() as occupied:
        sockets = {name: occupied.enter_context(socket.create_server(("127.0.0.1", 0))) for name in PORTS}
        ports = {name: str(each.getsockname()[1]) for name, each in sockets.items()}
        assert up.run(**ports).wait(30) == 2
    *named, remedy = up.output.read_text().splitlines()[-len(ports) - 1 :]
    assert sorted(named) == sorted(f"{name}: port {port} is in use by another program" for name, port in ports.items())
    assert remedy == "stop these programs or choose other ports"


def test_dead_part_is_reported_before_the_others_stop(up: Up) -> None:
    popen = up.run(FLEET_SIM_VEHICLES="2")
    up.until_ready()
    servers = up.servers()
    (broker,) = [p for p in servers if p.name() == "mosquitto"]
    broker.kill()
    assert popen.wait(20) == 1, "the simulator does not wait for acknowledgements that nobody sends"
    output = up.output.read_text()
    report, stop = output.index("Mosquitto ended with -9"), output.index("stopping ...")
    assert report < stop
    assert "New client connected" in output[report:stop], "the end of its log"
    assert not alive(servers)
    assert not up.env.exists()


def test_killed_programs_are_started_again(up: Up) -> None:
    up.run(FLEET_SIM_VEHICLES="2")
    env = up.until_ready()
    commands = (["bridge", "run"], ["bridge", "keep"], ["api", "run"])
    programs = {" ".join(c): p for p in up.servers() for c in commands if p.cmdline()[-2:] == c}
    for program in programs.values():
        program.kill()
    names = ("the bridge", "the keeper", "the api")
    wait_until(lambda: all(f"{name} ended with -9" in up.output.read_text() for name in names), "all are reported")
    ports = [up.port(name) for name in ("BRIDGE_HTTP", "KEEPER_HTTP", "HTTP")]
    wait_until(lambda: all(ready(port) for port in ports), "all are ready again")
    assert dict(word.split("=", 1) for word in shlex.split(up.env.read_text())) == env
    assert up.stop() == 0


def test_program_that_is_killed_while_it_starts_is_started_again(up: Up) -> None:
    up.run()
    up.until_ready()

    def reported(times: int) -> bool:
        return up.output.read_text().count("the bridge ended with -9") >= times

    for times in (1, 2, 3):
        wait_until(lambda: killed(up, ["bridge", "run"]), "the bridge is killed")
        wait_until(partial(reported, times), "it is reported")
    wait_until(lambda: ready(up.port("BRIDGE_HTTP")), "it is ready")
    assert up.stop() == 0


def test_secrets_are_private(running: Up) -> None:
    env = running.until_ready()
    assert stat.S_IMODE(running.directory.stat().st_mode) == 0o700
    for path in (running.env, running.directory / "api-key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    output = running.introduction()
    assert env["FLEET_API_URL"] in output
    assert env["FLEET_API_KEY"] not in output


def test_printed_line_provisions_a_device_for_the_printed_ports(running: Up) -> None:
    output = running.introduction()
    tls, password = map(int, re.findall(r"mqtts://localhost:(\d+)", output))
    assert (tls, password) == (int(running.port("MQTT_TLS")), int(running.port("MQTT_PASSWORD")))
    (shown,) = [lines for lines in re.findall(r"(?:.*\\\n)+.*\n", output) if "device add" in lines]
    for command in (shown, shown.replace("EV_002 --kind vehicle", "METER_001 --kind meter --password")):
        subprocess.run(["sh", "-c", command], cwd=ROOT, check=True, timeout=60)
    devices = running.directory / "mosquitto" / "devices"
    with connected(with_certificate(devices / "vehicle" / "EV_002"), tls) as vehicle:
        assert vehicle.publish("fleet/vehicle/EV_002/telemetry", b"{}") == "Success"
    with connected(with_password(devices / "meter" / "METER_001", "meter/METER_001"), password) as meter:
        assert meter.publish("fleet/meter/METER_001/telemetry", b"{}") == "Success"


def address_of_this_machine() -> str:
    """That of its network; without one, an address of loopback that is not the default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_device_on_the_network_sends_a_reading(up: Up) -> None:
    """The path of docs/operations.md: the broker's name and address, a device's credentials, its reading."""
    address = address_of_this_machine()
    up.run(FLEET_MQTT_TLS_ADDRESS=address, FLEET_BROKER_HOSTS=f"mqtt.example.org,{address}")
    env = up.until_ready()
    directory = up.directory / "mosquitto"
    add = [sys.executable, "-m", "mosquitto", "device", "add", "EV_7", "--kind", "vehicle", "--dir", str(directory)]
    subprocess.run(add, check=True, capture_output=True, timeout=30)
    device = directory / "devices" / "vehicle" / "EV_7"
    files = ["--cafile", "ca.crt", "--cert", "device.crt", "--key", "device.key"]
    reading = {"vehicleId": "EV_7", "soc": 72.5, "timestamp": datetime.now(UTC).isoformat()}
    message = ["-V", "5", "-q", "1", "-t", "fleet/vehicle/EV_7/telemetry", "-m", json.dumps(reading)]
    publish = ["mosquitto_pub", "-h", address, "-p", up.port("MQTT_TLS"), *files, *message]
    done = subprocess.run(publish, cwd=device, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    headers = {"Authorization": f"Bearer {env['FLEET_API_KEY']}"}
    live = f"{env['FLEET_API_URL']}/v1/live/vehicles/EV_7"
    wait_until(lambda: httpx.get(live, headers=headers).status_code == 200, "the reading is stored")
    assert httpx.get(live, headers=headers).json()["soc"] == 72.5
    if address != "127.0.0.2":  # that of the plain listener stays the machine's own
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, int(up.port("MQTT"))), timeout=5)
    assert up.stop() == 0


def test_default_port_that_is_taken_gives_way(up: Up) -> None:
    with socket.socket() as occupied:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # another program has it already, which is sufficient
            occupied.bind(("127.0.0.1", 8000))
            occupied.listen()
        up.run(FLEET_HTTP_PORT=None)
        env = up.until_ready()
    assert not env["FLEET_API_URL"].endswith(":8000")
    assert "port 8000 is in use by another program" in up.output.read_text()
    assert_stops(up, signal.SIGTERM)


def test_simulated_fleet_arrives_until_ctrl_c_stops_all(up: Up) -> None:
    up.run(FLEET_SIM_VEHICLES=None)
    env = up.until_ready()
    headers = {"Authorization": f"Bearer {env['FLEET_API_KEY']}"}
    with httpx.Client(base_url=env["FLEET_API_URL"], headers=headers) as client:
        # Twenty vehicles, distributed over the minute: the first ones arrive within seconds.
        wait_until(lambda: len(client.get("/v1/live/vehicles").json()["items"]) >= 2, "vehicles are live", 60)
    assert_stops(up, signal.SIGINT)
