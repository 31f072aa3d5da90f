"""The platform with a broker: the parts, and Mosquitto."""

from collections.abc import Sequence
from pathlib import Path

from local.mosquitto import Mosquitto
from local.parts import Part, Parts
from local.ports import Ports, free_ports, is_open


class Platform(Parts):
    """PostgreSQL, Mosquitto, bridge, keeper and API in one private directory, on loopback, with their logins.

    Devices may reach the broker's TLS listeners under another address (`tls_address`) and by `hosts`, too.
    """

    def __init__(
        self,
        directory: Path,
        ports: Ports | None = None,
        sim_vehicles: int = 0,
        *,
        tls_address: str = "127.0.0.1",
        hosts: Sequence[str] = (),
        replicas: int = 0,
    ) -> None:
        ports = ports or free_ports()
        self.broker = Mosquitto(
            directory.resolve() / "mosquitto",
            port=ports.mqtt,
            tls_port=ports.mqtt_tls,
            password_port=ports.mqtt_password,
            tls_address=tls_address,
            hosts=hosts,
        )
        super().__init__(directory, ports, sim_vehicles, replicas)

    @property
    def brokers(self) -> Sequence[Part]:
        """The broker."""
        return [self.broker]

    @property
    def accepts_devices(self) -> bool:
        """Whether the listener for gateways accepts connections."""
        return is_open(self.ports.mqtt)

    @property
    def _mqtt_addresses(self) -> dict[str, str]:
        return {"FLEET_MQTT_URL": self.broker.url}

    @property
    def _source(self) -> dict[str, str]:
        return {
            "FLEET_BRIDGE_MQTT_URL": self.broker.bridge_url,
            "FLEET_BRIDGE_CLIENT_ID": self.broker.bridge_client_id,
        }

    @property
    def _alarm_broker(self) -> dict[str, str]:
        return {"FLEET_ALARM_MQTT_URL": self.broker.bridge_url}
