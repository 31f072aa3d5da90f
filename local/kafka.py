"""A Kafka broker in KRaft mode on loopback, in a private directory. Needs Java 17 or newer and the broker's jars."""

import base64
import os
import secrets
import shutil
import subprocess
import uuid
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.private_file import make_private_directory, read_private, write_private
from local.ports import free_port, is_open
from local.process import Process

_HEAP = "-Xmx384m"
_START_TIMEOUT_S = 90.0


class Kafka:
    """One broker, which is its own controller. Its topics are kept across restarts.

    `jars` is the directory that scripts/kafka/install fills.
    """

    def __init__(self, directory: Path, jars: Path) -> None:
        self._directory = directory
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
            write_private(conf, self._properties())
            self._format(conf)
        self.process.start()
        self.process.wait_until(lambda: is_open(self._port), _START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    @property
    def url(self) -> str:
        """For all clients."""
        return f"kafka://fleet:{self._password()}@127.0.0.1:{self._port}"

    def _properties(self) -> str:
        clients, controllers = f"127.0.0.1:{self._port}", f"127.0.0.1:{self._controller_port}"
        password = self._password()
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        accounts = f'username="fleet" password="{password}" user_fleet="{password}";'
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.bootstrap.servers={controllers}",
                f"listeners=CLIENT://{clients},CONTROLLER://{controllers}",
                f"advertised.listeners=CLIENT://{clients}",
                "listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name=CLIENT",
                "controller.listener.names=CONTROLLER",
                "sasl.enabled.mechanisms=PLAIN",
                "sasl.mechanism.inter.broker.protocol=PLAIN",
                f"listener.name.client.plain.sasl.jaas.config={login} {accounts}",
                f"log.dirs={self._directory / 'data'}",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "share.coordinator.state.topic.replication.factor=1",
                "share.coordinator.state.topic.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "group.min.session.timeout.ms=1000",
                "auto.create.topics.enable=false",
                "",
            ]
        )

    def _format(self, conf: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        argv = [*self._java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", conf]
        subprocess.run(list(map(str, argv)), check=True, capture_output=True, timeout=60)  # noqa: S603

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
