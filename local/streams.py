"""The platform with a stream: the parts, and three nodes of a NATS cluster instead of a broker."""

from collections.abc import Sequence
from pathlib import Path

from local.nats import Nats
from local.parts import Part, Parts
from local.ports import Ports, free_ports

_NODES = 3


class StreamPlatform(Parts):
    """PostgreSQL, three NATS nodes, bridge, keeper and API in one private directory, on loopback, with their logins.

    Devices speak MQTT 3.1.1 to any of the nodes, in plain text. The first has the broker's port.
    """

    def __init__(
        self, directory: Path, ports: Ports | None = None, sim_vehicles: int = 0, *, replicas: int = 0
    ) -> None:
        ports = ports or free_ports()
        self.nats = Nats(directory.resolve() / "nats", _NODES, mqtt_ports=[ports.mqtt])
        super().__init__(directory, ports, sim_vehicles, replicas)

    @property
    def brokers(self) -> Sequence[Part]:
        """The nodes of the cluster."""
        return self.nats.nodes

    @property
    def accepts_devices(self) -> bool:
        """Whether so many nodes accept connections that the cluster can store a message."""
        return sum(node.is_open for node in self.nats.nodes) > _NODES // 2

    def _start_brokers(self) -> None:
        self.started += self.nats.nodes
        self.nats.start()  # at once: one node alone is no cluster

    def _is_replaceable(self, part: Part) -> bool:
        """A node, too: it gets from the others what it lacks."""
        return part is not self.postgres

    @property
    def _mqtt_addresses(self) -> dict[str, str]:
        nodes = zip(self.nats.nodes, self.nats.mqtt_urls, strict=True)
        by_node = {f"MQTT_URL_{node.name.upper()}": url for node, url in nodes}
        return {"FLEET_MQTT_URL": self.nats.mqtt_urls[0], "FLEET_MQTT_VERSION": "3.1.1", **by_node}

    @property
    def _source(self) -> dict[str, str]:
        return {
            "FLEET_SOURCE": "jetstream",
            "FLEET_NATS_URL": self.nats.bridge_url,
            "FLEET_NATS_REPLICAS": str(self.nats.replicas),
        }
