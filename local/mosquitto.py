"""The system's Mosquitto with the project's configuration, in a private directory, on loopback by default."""

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.private_file import write_private
from bridge.settings.development import SuiteSettings
from local.ports import free_port, is_open
from local.process import Process, give_to_service
from mosquitto import provisioning
from mosquitto.directory import Directory, accounts

_HOSTS = ("localhost", "127.0.0.1", "::1")


class Mosquitto:
    """One broker in one directory. Its CA, accounts, devices and queue are kept across restarts."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        bridge_port: int | None = None,
        tls_port: int | None = None,
        password_port: int | None = None,
        tls_address: str = "127.0.0.1",
        hosts: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.bridge_port = bridge_port or free_port()
        self.tls_port = tls_port or free_port()
        """Devices with certificates."""
        self.password_port = password_port or free_port()
        """Devices with passwords, in TLS too."""
        self._tls_address = tls_address
        self._hosts = [*_HOSTS, *(host for host in hosts if host not in _HOSTS)]
        log = directory.parent / "logs" / "mosquitto.log"
        argv = [_program(), "-c", directory / "mosquitto.conf"]
        self.process = Process("Mosquitto", argv, log, as_service=True)

    def start(self) -> None:
        """Write the configuration, start the broker and wait until every listener accepts connections."""
        self._configure()
        self.process.start()
        listeners = [(port, "127.0.0.1") for port in (self.port, self.bridge_port)]
        listeners += [(port, self._tls_address) for port in (self.tls_port, self.password_port)]
        self.process.wait_until(lambda: all(is_open(*listener) for listener in listeners))

    def stop(self) -> None:
        """Stop the broker, which saves its queue."""
        self.process.stop()

    @property
    def url(self) -> str:
        """For gateways: an account that may publish for every device."""
        return f"mqtt://gateway:{self._accounts()['gateway']}@127.0.0.1:{self.port}"

    @property
    def bridge_url(self) -> str:
        """For the bridge only."""
        return f"mqtt://bridge:{self._accounts()['bridge']}@127.0.0.1:{self.bridge_port}"

    @property
    def bridge_client_id(self) -> str:
        """The bridge's secret client id, FLEET_BRIDGE_CLIENT_ID: a client that knows it could take over the session."""
        return self._accounts()["bridge_client_id"]

    @property
    def provisioning(self) -> Directory:
        """The CA, the registry and the credentials of this broker's devices."""
        return Directory(self.directory)

    def _configure(self) -> None:
        provisioning.initialise(self.provisioning, self._hosts)
        provisioning.ensure_hosts(self.provisioning, self._hosts)
        (self.directory / "data").mkdir(mode=0o700, exist_ok=True)
        write_private(self.provisioning.control_url, f"mqtt://127.0.0.1:{self.bridge_port}")
        conf = self._adapted((files("mosquitto") / "mosquitto.conf").read_text())
        write_private(self.directory / "mosquitto.conf", conf)
        for path in self._broker_files():
            give_to_service(path)

    def _broker_files(self) -> Iterator[Path]:
        yield self.directory / "mosquitto.conf"
        for directory in (self.directory / "data", self.provisioning.broker):
            yield directory
            yield from directory.iterdir()

    def _adapted(self, conf: str) -> str:
        """The configuration with this machine's paths and ports. Raises `Misconfigured` if it was edited."""
        changes = {
            "listener 1883\n": f"listener {self.port} 127.0.0.1\n",
            "listener 1884\n": f"listener {self.bridge_port} 127.0.0.1\n",
            "listener 8883\n": f"listener {self.tls_port} {self._tls_address}\n",
            "listener 8884\n": f"listener {self.password_port} {self._tls_address}\n",
            " /mosquitto/config/": f" {self.provisioning.broker}/",
            " /mosquitto/data/": f" {self.directory}/data/",
        }
        for text, here in changes.items():
            if text not in conf:
                raise Misconfigured(f"mosquitto.conf: expected {text.strip()!r}")
            conf = conf.replace(text, here)
        return conf

    def _accounts(self) -> dict[str, str]:
        return accounts(self.provisioning)


def _program() -> str:
    """The broker of the test servers (CONTRIBUTING.md) where they are chosen, the system's otherwise."""
    if chosen := SuiteSettings.read(os.environ).test_mosquitto:
        return str(chosen)
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Misconfigured("Mosquitto is missing: install the system package `mosquitto`")
    return found
