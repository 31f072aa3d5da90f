"""The broker's container, as far as it can be tried without one: with exactly the capabilities of docker-compose.yml
and `no-new-privileges`, its start command works as root, and so does a reload.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import secrets
from local.ports import free_port, is_open
from local.process import Process
from mosquitto import provisioning
from mosquitto.device import device
from mosquitto.directory import Directory
from tests.mqtt_devices import connected, with_certificate, with_password
from tests.until import wait_until

ROOT = Path(__file__).parents[2]
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["mosquitto"]
PORTS = ("1883", "1884", "8883", "8884")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("mosquitto", path="/usr/sbin:/usr/bin"),
    reason="needs root, setpriv and the system's Mosquitto with its user",
)


class Container:
    """The files and commands of the container, with its paths moved below a directory."""

    def __init__(self, directory: Path) -> None:
        self.ports = {port: free_port() for port in PORTS}
        self.broker = Directory(secrets.make(directory / "secrets") / "mosquitto")
        self._run, self._own = directory / "run", directory / "mosquitto"
        self._run.mkdir()
        self._own.mkdir()
        for name in ("config", "data"):
            (self._own / name).mkdir()
        shutil.chown(self._own / "data", "mosquitto", "mosquitto")  # as the image's volume
        self._moved("mosquitto.conf", ROOT / "mosquitto" / "mosquitto.conf")
        self._moved("install.sh", ROOT / "mosquitto" / "install.sh")
        for level in (directory, *directory.parents):
            if level.stat().st_uid == 0 and str(level) != "/":
                level.chmod(level.stat().st_mode | 0o011)  # the broker's user has to pass
        argv = [*self._confined, "sh", "-c", self._here(SERVICE["command"][-1])]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.process = Process("the container", argv, directory / "log", env=env)

    def reload(self) -> None:
        """`docker compose exec mosquitto sh -c "sh /run/fleet/install.sh && kill -HUP 1"`."""
        (pid,) = re.findall(r"\d+", (self._own / "data" / "mosquitto.pid").read_text())
        command = self._here(f"sh /run/fleet/install.sh && kill -HUP {pid}")
        subprocess.run([*self._confined, "sh", "-c", command], check=True, timeout=30)

    @property
    def _confined(self) -> list[str]:
        kept = "".join(f",+{name.lower()}" for name in SERVICE["cap_add"])
        return ["setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all", "--no-new-privs"]

    def _moved(self, name: str, source: Path) -> None:
        text = self._here(source.read_text())
        for port, here in self.ports.items():
            text = text.replace(f"listener {port}\n", f"listener {here} 127.0.0.1\n")
        (self._run / name).write_text(text)
        (self._run / name).chmod(0o644)

    def _here(self, text: str) -> str:
        moved = {"/run/fleet/broker": self.broker.broker, "/run/fleet": self._run, "/mosquitto/": f"{self._own}/"}
        return re.sub("|".join(moved), lambda path: str(moved[path[0]]), text)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    yield made
    made.process.stop()


def test_broker_starts_and_reloads_with_the_capabilities_of_its_container(container: Container) -> None:
    container.process.start()
    container.process.wait_until(lambda: all(map(is_open, container.ports.values())))
    add = [sys.executable, "-m", "mosquitto", "device", "add", "--dir", str(container.broker.root)]
    reload = ["--reload-command", "true"]
    provisioning.add_certificates(container.broker, [device("vehicle", "EV_1")], timedelta(days=1))
    certificate = with_certificate(container.broker.credentials("vehicle/EV_1"))
    with connected(certificate, container.ports["8883"]) as vehicle:
        assert vehicle.publish("fleet/vehicle/EV_1/telemetry") in ("Success", "No matching subscribers")
    subprocess.run([*add, "M_1", "--kind", "meter", "--password", *reload], check=True, timeout=30)
    container.reload()
    meter = container.broker.credentials("meter/M_1")

    def accepted() -> bool:
        with connected(with_password(meter, "meter/M_1"), container.ports["8884"]) as client:
            return client.publish("fleet/meter/M_1/telemetry") in ("Success", "No matching subscribers")

    wait_until(accepted, "the account of the reloaded file connects")
