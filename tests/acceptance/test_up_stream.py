"""`fleet-local up --stream nats`: three nodes instead of a broker, and the commands of docs/streams.md."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.up import Up, alive, killed, ready, shell
from tests.until import wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "streams.md"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    platform = Up(tmp_path / "local")
    yield platform
    sys.stdout.write(platform.output.read_text())  # shown when the test fails
    if platform.runs:
        platform.stop(signal.SIGTERM)


def nodes(up: Up) -> list[psutil.Process]:
    return [server for server in up.servers() if server.name() == "nats-server"]


def counted(answers: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answers, re.MULTILINE)))


def test_commands_of_the_page_survive_a_killed_node_and_read_from_the_replica(up: Up) -> None:
    up.run("up", "--stream", "nats", "--replicas", "1")
    up.until_ready(120)
    before = nodes(up)
    assert len(before) == 3
    logs = {path.stem for path in (up.directory / "logs").iterdir()}
    assert logs == {"api", "bridge", "keeper", "nats-n1", "nats-n2", "nats-n3", "postgres", "replica-1"}
    section = PAGE.read_text().split("## On one machine")[1].split("## ")[0]
    start, load, publish, read = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    assert "python -m local up --stream nats --replicas 1" in start
    assert load.strip() == "set -a; . .local/env; set +a"
    # Beside other tests an election takes longer than the ten seconds of the page.
    shell(publish.replace(".local/", f"{up.directory}/"), up.env, 120)

    def answers() -> str:
        return shell(read, up.env)

    wait_until(lambda: '"soc":72.5' in answers() and '"soc":64.5' in answers(), "both readings are live", 60)
    earlier, found = answers(), answers()
    assert len(re.findall(r"^x-as-of: 20\S+Z\s*$", found, re.MULTILINE | re.IGNORECASE)) == 2
    name = "fleet_replica_answers_total"
    assert counted(found, name) == counted(earlier, name) + 2, found
    assert len(alive(before)) == 2
    wait_until(lambda: len(nodes(up)) == 3, "the killed node is started again")
    assert "NATS n1 ended with -9; starting it again" in up.output.read_text()
    assert up.stop() == 0, up.output.read_text()


def test_nodes_that_are_killed_while_the_bridge_starts_are_started_again(up: Up) -> None:
    """The bridge is not ready without two of them, and was waited for instead of them."""
    up.run("up", "--stream", "nats")
    up.until_ready(120)
    wait_until(lambda: killed(up, ["bridge", "run"]), "the bridge is killed")
    wait_until(lambda: "the bridge ended with -9; starting it again" in up.output.read_text(), "it is started again")
    for node in nodes(up)[:2]:
        node.kill()
    wait_until(lambda: up.output.read_text().count("ended with -9; starting it again") == 3, "so are the nodes")
    wait_until(lambda: ready(up.port("BRIDGE_HTTP")), "the bridge is ready", 60)
    assert up.stop() == 0, up.output.read_text()


def test_simulated_fleet_arrives_and_the_platform_starts_again_on_its_streams(up: Up) -> None:
    up.run("up", "--stream", "nats", FLEET_SIM_VEHICLES="20")
    env = up.until_ready(120)
    headers = {"Authorization": f"Bearer {env['FLEET_API_KEY']}"}
    with httpx.Client(base_url=env["FLEET_API_URL"], headers=headers) as client:
        # Twenty vehicles, distributed over the minute: the first ones arrive within seconds.
        wait_until(lambda: len(client.get("/v1/live/vehicles").json()["items"]) >= 2, "vehicles are live", 60)
    servers = up.servers()
    assert up.stop() == 0, up.output.read_text()
    assert not alive(servers)
    up.run("up", "--stream", "nats")
    again = up.until_ready(120)
    assert again["FLEET_MQTT_URL"] == env["FLEET_MQTT_URL"]
    bridge = (up.directory / "logs" / "bridge.log").read_text()
    assert bridge.count("new consumer") == 1, "the second start has the consumer of the first"
    verify = [sys.executable, "-m", "simulator", "verify", str(up.directory / "ledger")]
    done = subprocess.run(verify, check=False, env={**os.environ, **again}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert up.stop() == 0, up.output.read_text()
