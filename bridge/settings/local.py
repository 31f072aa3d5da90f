"""The settings of `make up` and docker-compose.yml."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bridge.settings.api import ApiPortSettings
from bridge.settings.bridge import HealthPortSettings
from bridge.settings.groups import LogSettings
from bridge.settings.keeper import KeeperPortSettings
from bridge.settings.values import Port


class PlatformPortSettings(ApiPortSettings, HealthPortSettings, KeeperPortSettings):
    """The ports of the whole platform on the loopback interface."""

    title: ClassVar[str] = "The platform on one machine"

    mqtt_port: Port = Field(default=1883, description="Port of the broker's listener for gateways (plain text).")
    mqtt_tls_port: Port = Field(default=8883, description="Port of the broker's listener for certificates.")
    mqtt_password_port: Port = Field(default=8884, description="Port of the broker's listener for passwords, in TLS.")
    postgres_port: Port = Field(default=5432, description="Port of PostgreSQL.")


class LocalSettings(PlatformPortSettings, LogSettings):
    """All settings of `make up`. A port that is not set is replaced by a free one if its default is in use."""

    local_dir: Path = Field(default=Path(".local"), description="Private directory: data, logs, secrets.")
    sim_vehicles: int = Field(
        default=20, ge=0, le=100_000, description="Vehicles that are simulated, each with a meter; 0: no simulator."
    )


class ComposeSettings(PlatformPortSettings):
    """All settings of docker-compose.yml."""

    postgres_shared_buffers: str = Field(
        default="512MB", description="`shared_buffers` of PostgreSQL; a quarter of the memory is usual."
    )
    prometheus_port: Port = Field(default=9090, description="Port of Prometheus (profile `monitoring`).")
    alertmanager_port: Port = Field(default=9093, description="Port of Alertmanager (profile `monitoring`).")
    grafana_port: Port = Field(default=3000, description="Port of Grafana (profile `monitoring`).")
