"""The settings of `make up` and docker-compose.yml."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bridge.settings.api import ApiPortSettings
from bridge.settings.bridge import HealthPortSettings
from bridge.settings.group import Group
from bridge.settings.groups import LogSettings
from bridge.settings.keeper import KeeperPortSettings
from bridge.settings.values import Address, Hosts, Port


class BrokerHostSettings(Group):
    """The names of the broker."""

    title: ClassVar[str] = "The platform on one machine"

    broker_hosts: Hosts = Field(
        default="",
        description="Host names and addresses under which devices know the broker, separated by commas: they are "
        "added to its certificate, which is renewed if it lacks one.",
    )

    @property
    def hosts(self) -> list[str]:
        """The names one by one."""
        return [name for name in self.broker_hosts.split(",") if name]


class PlatformPortSettings(ApiPortSettings, HealthPortSettings, KeeperPortSettings):
    """The ports of the whole platform on the loopback interface."""

    title: ClassVar[str] = "The platform on one machine"

    mqtt_port: Port = Field(default=1883, description="Port of the broker's listener for gateways (plain text).")
    mqtt_tls_port: Port = Field(default=8883, description="Port of the broker's listener for certificates.")
    mqtt_password_port: Port = Field(default=8884, description="Port of the broker's listener for passwords, in TLS.")
    postgres_port: Port = Field(default=5432, description="Port of PostgreSQL.")
    mqtt_tls_address: Address = Field(
        default="127.0.0.1",
        description="Address of the broker's two TLS listeners for devices; 0.0.0.0: all addresses of this machine.",
    )


class LocalSettings(PlatformPortSettings, BrokerHostSettings, LogSettings):
    """All settings of `make up`. A port that is not set is replaced by a free one if its default is in use."""

    local_dir: Path = Field(default=Path(".local"), description="Private directory: data, logs, secrets.")
    sim_vehicles: int = Field(
        default=20, ge=0, le=100_000, description="Vehicles that are simulated, each with a meter; 0: no simulator."
    )


class ComposeSettings(PlatformPortSettings):
    """All settings of docker-compose.yml."""

    mqtt_address: Address = Field(
        default="127.0.0.1",
        description="Address of the listener for gateways (plain text): of an internal network, never a public one.",
    )
    http_address: Address = Field(
        default="127.0.0.1",
        description="Address of the API, which has no TLS in the container: an internal one, for a TLS proxy.",
    )
    postgres_memory: str = Field(
        default="4g", description="Memory limit of PostgreSQL's container; several times `shared_buffers`."
    )
    postgres_cpus: float = Field(default=0, ge=0, le=1_024, description="CPU limit of PostgreSQL's container; 0: none.")
    mosquitto_memory: str = Field(
        default="4g", description="Memory limit of the broker's container; above `max_queued_bytes` of mosquitto.conf."
    )
    api_memory: str = Field(default="1g", description="Memory limit of the API's container.")
    postgres_shared_buffers: str = Field(
        default="512MB", description="`shared_buffers` of PostgreSQL; a quarter of the memory is usual."
    )
    prometheus_port: Port = Field(default=9090, description="Port of Prometheus (profile `monitoring`).")
    alertmanager_port: Port = Field(default=9093, description="Port of Alertmanager (profile `monitoring`).")
    grafana_port: Port = Field(default=3000, description="Port of Grafana (profile `monitoring`).")
