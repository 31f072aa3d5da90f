"""The platform under test with relays and a Kafka broker between the devices' broker and the bridges."""

import os
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.settings.development import SuiteSettings
from local.kafka import ACCOUNTS, Kafka
from local.ports import free_port
from tests.acceptance.chaos.disk import small_disk
from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.processes import Relay
from tests.acceptance.chaos.stack import START_S, through
from tests.acceptance.chaos.stream_stack import StreamStack
from tests.acceptance.chaos.workload import sentinel_of
from tests.kafka_records import Topic
from tests.until import wait_until

TOPIC = "chaos"
_INDEX_BYTES = 1024 * 1024


class LinkedKafka(Kafka):
    """A broker with one more listener for each link, which tells its clients to come through the link.

    Its topics are on `disk`, if there is one.
    """

    def __init__(self, directory: Path, jars: Path, disk: Path | None) -> None:
        super().__init__(directory, jars)
        if disk is not None:
            self.store = disk / "data" / "kafka"
        self._links: dict[int, Link] = {}

    def add_link(self, port: int, link: Link) -> None:
        """Listen on `port` for the clients of this link. To be called before the start."""
        self._links[port] = link

    def _properties(self) -> dict[str, object]:
        # The copy of a store has no holes: of the default size, its indexes alone would fill a small disk.
        properties = {**super()._properties(), "log.index.size.max.bytes": _INDEX_BYTES}
        for number, (port, link) in enumerate(self._links.items()):
            name = f"LINK{number}"
            for key, listener in {
                "listeners": f"{name}://127.0.0.1:{port}",
                "advertised.listeners": f"{name}://127.0.0.1:{link.port}",
                "listener.security.protocol.map": f"{name}:SASL_PLAINTEXT",
            }.items():
                properties[key] = f"{properties[key]},{listener}"
            properties[ACCOUNTS.replace("client", name.lower())] = properties[ACCOUNTS]
        return properties


class KafkaStack(StreamStack):
    """Devices publish to Mosquitto, a relay to Kafka, and the bridges read from there. Devices get no receipts.

    Links: from the relays to Mosquitto and to Kafka, and from the bridges to Kafka.
    """

    gives_receipts = False
    # These look at what a bridge does that reads from Mosquitto.
    without = StreamStack.without | {
        "mqtt-taken-over",
        "broker-kill-with-backlog",
        "broker-lost-database",
        "broker-queue-full",
    }
    partitions = 4
    owned = "fleet_kafka_partitions"

    def __init__(
        self,
        directory: Path,
        seed: int,
        first: tuple[str, int] | None = None,
        first_relay: tuple[str, int] | None = None,
    ) -> None:
        self._jars, self._first_relay = _jars(), first_relay
        super().__init__(directory, seed, first)

    def _start_broker(self) -> str:
        devices_url = super()._start_broker()
        self.kafka_disk = small_disk(self._opened)
        self.kafka = LinkedKafka(self.directory / "kafka" / "broker", self._jars, self.kafka_disk)
        self.nodes = [self.kafka]
        self.bridges_link, self.relays_link = self._kafka_link(), self._kafka_link()
        self.stream_links = [self.bridges_link]
        self._opened.callback(self.kafka.stop)
        self.kafka.start()
        self.relays: list[Relay] = []
        self._opened.callback(self.kill_relays)
        relay = self.start_relay("a", self._first_relay)
        wait_until(relay.ready, "the relay is ready", START_S)
        return devices_url

    def _kafka_link(self) -> Link:
        port = free_port()
        link = self._link(port)
        self.kafka.add_link(port, link)
        return link

    @property
    def _source(self) -> dict[str, str]:
        return {
            "FLEET_SOURCE": "kafka",
            "FLEET_KAFKA_URL": through(self.kafka.url, self.bridges_link),
            "FLEET_KAFKA_SASL": "PLAIN",
            "FLEET_KAFKA_TOPIC": TOPIC,
            "FLEET_KAFKA_PARTITIONS": str(self.partitions),
            "FLEET_KAFKA_SESSION_TIMEOUT_MS": "2000",
        }

    def start_relay(self, name: str, wrap: tuple[str, int] | None = None) -> Relay:
        """Start one more relay; `wrap` names a planted bug, and its n."""
        settings = {
            "FLEET_RELAY_NAME": name,
            "FLEET_RELAY_MQTT_URL": through(self.broker.bridge_url, self.broker_link),
            "FLEET_KAFKA_URL": through(self.kafka.url, self.relays_link),
        }
        self.relays.append(Relay(self.directory / "logs", {**self._env, **settings}, wrap))
        return self.relays[-1]

    def kill_relays(self) -> None:
        """kill -9 of every relay."""
        for relay in self.relays:
            relay.process.kill()
            self.kills += 1

    def drained(self, cycle: int, /) -> bool:
        """Whether the last message is stored, and the relays wait for nothing, and the bridges have read everything."""
        last = f"SELECT FROM vehicle_telemetry_history WHERE vehicle_id = '{sentinel_of(cycle)}'"
        return (
            self.sql(f"SELECT EXISTS ({last})") == "t"
            and all(relay.ready() and not relay.metric("fleet_relay_waiting") for relay in self.relays)
            and Topic(self.kafka.url, TOPIC).is_committed()
        )

    def supervise(self) -> None:
        """The same for a relay."""
        super().supervise()
        for relay in self.relays:
            if not relay.process.running:
                relay.process.start()


def _jars() -> Path:
    """The jars of the broker. Raises `Misconfigured`, which says how to get them."""
    found = SuiteSettings.read(os.environ).test_kafka_jars
    if found is None:
        raise Misconfigured(
            "a Kafka broker needs Java and its jars: run sh scripts/kafka/install DIRECTORY and set "
            "FLEET_TEST_KAFKA_JARS to the directory"
        )
    return found.resolve()
