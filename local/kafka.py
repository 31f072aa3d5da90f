"""A Kafka broker in KRaft mode on loopback, in a private directory. Needs Java 17 or newer and the broker's jars."""

import base64
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from bridge.errors import Misconfigured
from bridge.private_file import make_private_directory, read_private, write_private
from local.ports import free_port, is_open
from local.process import Process

_HEAP = "-Xmx384m"
START_TIMEOUT_S = 180.0
"""A machine with much other work takes more than a minute."""
ACCOUNTS = "listener.name.client.plain.sasl.jaas.config"
"""The property with the accounts of the listener for clients, without TLS."""
_SCRAM = "SCRAM-SHA-512"
_MODULES = "org.apache.kafka.common.security"


class Certificate(NamedTuple):
    """Files in PEM."""

    authority: Path
    server: Path
    """The key (PKCS 8), then the certificate."""


class Kafka:
    """One broker, which is its own controller. Its topics are kept across restarts.

    `jars` is the directory that scripts/kafka/install fills. Clients log in with SASL: PLAIN in plain text, or
    SCRAM-SHA-512 by TLS with a `certificate` for 127.0.0.1.
    """

    def __init__(self, directory: Path, jars: Path, certificate: Certificate | None = None) -> None:
        self._directory = directory
        self._certificate = certificate
        self.store = directory / "data"
        """The directory of its topics."""
        self._port, self._controller_port = free_port(), free_port()
        conf = directory / "server.properties"
        self._java = [_java(), _HEAP, "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        argv = [*self._java, "kafka.Kafka", conf]
        self.process = Process("Kafka", argv, directory.parent / "logs" / "kafka.log")

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        conf = self._directory / "server.properties"
        if not conf.exists():
            make_private_directory(self._directory)
            write_private(conf, "".join(f"{name}={value}\n" for name, value in self._properties().items()))
            self._format(conf)
        self.process.start()
        self.process.wait_until(lambda: self.is_open, START_TIMEOUT_S)

    @property
    def is_open(self) -> bool:
        """Whether it accepts connections."""
        return is_open(self._port)

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    @property
    def url(self) -> str:
        """For all clients."""
        scheme = "kafka" if self._certificate is None else "kafkas"
        return f"{scheme}://fleet:{self._password()}@127.0.0.1:{self._port}"

    def _properties(self) -> dict[str, object]:
        clients, controllers = f"127.0.0.1:{self._port}", f"127.0.0.1:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": controllers,
            "listeners": f"CLIENT://{clients},CONTROLLER://{controllers}",
            "advertised.listeners": f"CLIENT://{clients}",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            **self._security(),
            "log.dirs": self.store,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1_000,
            "auto.create.topics.enable": "false",
        }

    def _security(self) -> dict[str, object]:
        """How clients reach it and log in."""
        password, certificate = self._password(), self._certificate
        account = f'username="fleet" password="{password}"'
        if certificate is None:
            return {
                "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                ACCOUNTS: f'{_MODULES}.plain.PlainLoginModule required {account} user_fleet="{password}";',
            }
        return {
            "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": _SCRAM,
            "sasl.mechanism.inter.broker.protocol": _SCRAM,
            f"listener.name.client.{_SCRAM.lower()}.sasl.jaas.config": (
                f"{_MODULES}.scram.ScramLoginModule required {account};"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": certificate.server,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": certificate.authority,
        }

    def _format(self, conf: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        argv = [*self._java, "kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}", "-c", conf]
        if self._certificate is not None:
            argv += ["--add-scram", f"{_SCRAM}=[name=fleet,password={self._password()}]"]
        subprocess.run(list(map(str, argv)), check=True, capture_output=True, timeout=START_TIMEOUT_S)  # noqa: S603

    def _password(self) -> str:
        file = self._directory / "fleet.password"
        if not file.exists():
            make_private_directory(self._directory)
            write_private(file, secrets.token_hex(16))  # without characters that the configuration would interpret
        return read_private(file, "restore it, or delete it for a new one").strip()


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java is None:
        raise Misconfigured("java is missing: run make test-kafka, which installs it")
    return java
