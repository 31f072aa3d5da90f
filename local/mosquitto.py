"""The system's Mosquitto with the project's configuration, in a private directory, on loopback only."""

import json
import os
import secrets
import shutil
from importlib.resources import files
from pathlib import Path

from bridge.errors import Misconfigured
from local.ports import free_port, is_open
from local.private import write_private
from local.process import Process, give_to_service
from mosquitto import password_line

ACCOUNTS = ("bridge", "gateway")


class Mosquitto:
    """One broker in one directory: accounts and queue stay; start it again and they are there."""

    def __init__(self, directory: Path, *, port: int | None = None, bridge_port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.bridge_port = bridge_port or free_port()
        log = directory.parent / "logs" / "mosquitto.log"
        argv = [_program(), "-c", directory / "mosquitto.conf"]
        self.process = Process("Mosquitto", argv, log, as_service=True)

    def start(self) -> None:
        """Write the configuration, start the broker and wait until both listeners accept connections."""
        self._configure()
        self.process.start()
        self.process.wait_until(lambda: is_open(self.port) and is_open(self.bridge_port))

    def stop(self) -> None:
        """Stop it; it saves its queue."""
        self.process.stop()

    @property
    def url(self) -> str:
        """For gateways: an account that may publish for every device."""
        return f"mqtt://gateway:{self._secrets()['gateway']}@127.0.0.1:{self.port}"

    @property
    def bridge_url(self) -> str:
        """For the bridge only."""
        return f"mqtt://bridge:{self._secrets()['bridge']}@127.0.0.1:{self.bridge_port}"

    def _configure(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "data").mkdir(exist_ok=True)
        conf = self._adapted((files("mosquitto") / "mosquitto.conf").read_text())
        accounts = "".join(password_line(user, password) for user, password in self._secrets().items())
        for name, text in {"mosquitto.conf": conf, "passwords": accounts, "acl": _acl()}.items():
            write_private(self.directory / name, text)
        for path in (self.directory, *self.directory.iterdir()):
            give_to_service(path)

    def _adapted(self, conf: str) -> str:
        """The configuration with this machine's paths and ports. A line that is not there is a mistake of ours."""
        changes = {
            "listener 1883\n": f"listener {self.port} 127.0.0.1\n",
            "listener 1884\n": f"listener {self.bridge_port} 127.0.0.1\n",
            "password_file /mosquitto/config/passwords": f"password_file {self.directory}/passwords",
            "acl_file /mosquitto/config/acl": f"acl_file {self.directory}/acl",
            "persistence_location /mosquitto/data/": f"persistence_location {self.directory}/data/",
        }
        for line, here in changes.items():
            if conf.count(line) != 1:
                raise Misconfigured(f"mosquitto.conf: expected one line {line.strip()!r}")
            conf = conf.replace(line, here)
        return conf

    def _secrets(self) -> dict[str, str]:
        """The accounts' passwords, made once."""
        path = self.directory / "accounts.json"
        if not path.exists():
            write_private(path, json.dumps({account: secrets.token_urlsafe(18) for account in ACCOUNTS}))
        accounts: dict[str, str] = json.loads(path.read_text())
        return accounts


def _acl() -> str:
    return (files("mosquitto") / "acl").read_text()


def _program() -> str:
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Misconfigured("Mosquitto is missing: install the package `mosquitto` of your system")
    return found
