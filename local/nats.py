"""A NATS cluster with JetStream and MQTT on loopback, from the server's wheel, each node in a private directory."""

import json
import secrets
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.private_file import make_private_directory, read_private, write_private
from local.ports import free_port, is_open
from local.process import Process

_ACCOUNTS = ("bridge", "gateway")
# A device may publish readings and subscribe to its receipts; streams and acknowledgements are the bridge's alone.
_OF_GATEWAY = {
    "publish": ["fleet.>", "$MQTT.sub.>"],
    "subscribe": ["fleet.>", "$MQTT.sub.>", "_INBOX.>"],
}


class Node:
    """One server of a cluster. Its streams are kept across restarts."""

    def __init__(self, directory: Path, name: str, port: int | None = None, mqtt_port: int | None = None) -> None:
        self.name = name
        self.port = port or free_port()
        self.mqtt_port = mqtt_port or free_port()
        self.route_port = self.advertised_route_port = free_port()
        """Where it listens for the other nodes, and where these connect to it."""
        self._directory = directory
        self.store = directory / "data"
        """The directory of its streams."""
        conf = directory / "nats.conf"
        self._pid_file = directory / "pid"
        log = directory.parents[1] / "logs" / f"nats-{name}.log"
        self.process = Process(f"NATS {name}", [_program(), "-c", conf], log)

    def start(self) -> None:
        """Start it with the configuration that was written, and wait until it accepts connections."""
        self.process.start()
        self.process.wait_until(lambda: self.is_open)

    def stop(self) -> None:
        """Stop it, which writes its streams to the disk."""
        self.process.stop()

    @property
    def is_open(self) -> bool:
        """Whether it accepts connections of clients."""
        return is_open(self.port) and is_open(self.mqtt_port)

    def write_conf(self, nodes: Sequence["Node"], passwords: dict[str, str], sync_interval: str) -> None:
        """Write its configuration, as one of `nodes`."""
        make_private_directory(self._directory)
        conf: dict[str, object] = {
            "server_name": self.name,
            "listen": f"127.0.0.1:{self.port}",
            "pid_file": str(self._pid_file),
            "jetstream": {"store_dir": str(self.store), "sync_interval": sync_interval},
            "mqtt": {"listen": f"127.0.0.1:{self.mqtt_port}", "stream_replicas": len(nodes)},
            "authorization": {"users": [_user(name, password) for name, password in passwords.items()]},
        }
        if len(nodes) > 1:
            conf["cluster"] = {
                "name": "fleet",
                "listen": f"127.0.0.1:{self.route_port}",
                "advertise": f"127.0.0.1:{self.advertised_route_port}",
                "routes": [f"nats://127.0.0.1:{node.advertised_route_port}" for node in nodes],
            }
        write_private(self._directory / "nats.conf", json.dumps(conf, indent=2))


class Nats:
    """A cluster of `nodes` servers. Streams have as many replicas as there are nodes.

    `sync_interval` is how often a server writes its streams to the disk: a time, or `always`, before each
    acknowledgement.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 1,
        *,
        ports: Sequence[int | None] = (),
        mqtt_ports: Sequence[int | None] = (),
        sync_interval: str = "2m",
    ) -> None:
        self._directory = directory
        self._sync_interval = sync_interval
        at = [*ports, *[None] * nodes], [*mqtt_ports, *[None] * nodes]
        self.nodes = [Node(directory / f"n{n + 1}", f"n{n + 1}", at[0][n], at[1][n]) for n in range(nodes)]

    def start(self) -> None:
        """Start all nodes, and wait until each accepts connections."""
        make_private_directory(self._directory)
        passwords = {name: self._password(name) for name in _ACCOUNTS}
        for node in self.nodes:
            node.write_conf(self.nodes, passwords, self._sync_interval)
            node.process.start()
        for node in self.nodes:
            node.process.wait_until(lambda node=node: node.is_open)  # type: ignore[misc]

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.stop()

    @property
    def replicas(self) -> int:
        """The replicas of a stream that survives the loss of a minority of the nodes."""
        return len(self.nodes)

    @property
    def bridge_url(self) -> str:
        """For the bridge only: every node."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"nats://bridge:{self._password('bridge')}@{hosts}"

    @property
    def gateway_url(self) -> str:
        """The first node by NATS's own protocol, with an account that may publish for every device."""
        return f"nats://gateway:{self._password('gateway')}@127.0.0.1:{self.nodes[0].port}"

    @property
    def mqtt_urls(self) -> list[str]:
        """For gateways, by node: an account that may publish for every device. MQTT 3.1.1 only."""
        return [f"mqtt://gateway:{self._password('gateway')}@127.0.0.1:{node.mqtt_port}" for node in self.nodes]

    def _password(self, name: str) -> str:
        file = self._directory / f"{name}.password"
        if not file.exists():
            make_private_directory(self._directory)
            write_private(file, secrets.token_urlsafe(24))
        return read_private(file, "restore it, or delete it for a new one").strip()


def _user(name: str, password: str) -> dict[str, object]:
    user: dict[str, object] = {"user": name, "password": password}
    return user if name == "bridge" else {**user, "permissions": _OF_GATEWAY}


def _program() -> Path:
    """The server of the wheel, which installs it beside the interpreter."""
    for directory in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (program := directory / "nats-server").exists():
            return program
    raise Misconfigured("nats-server is missing: install fleet-energy-bridge[local]")
