"""What `make up` can be told, from the same `FLEET_*` environment as everything else."""

from dataclasses import fields
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.settings import Port
from local.ports import Ports, pick


class LocalSettings(BaseSettings):
    """Settings of `python -m local`; a port that is left to its default may give way to a free one."""

    model_config = SettingsConfigDict(env_prefix="FLEET_", frozen=True)

    local_dir: Path = Field(default=Path(".local"), description="Private directory of `make up`: data, logs, secrets.")
    http_port: Port = Field(default=8000, description="Port of the API.")
    mqtt_port: Port = Field(default=1883, description="Port of the local broker's gateway listener.")
    mqtt_tls_port: Port = Field(
        default=8883, description="Port of the local broker's listener for devices with certificates."
    )
    mqtt_password_port: Port = Field(
        default=8884, description="Port of the local broker's listener for devices with passwords, in TLS."
    )
    postgres_port: Port = Field(default=5432, description="Port of the local PostgreSQL.")
    bridge_http_port: Port = Field(default=9100, description="Port of the bridge's health and metrics.")
    sim_vehicles: int = Field(
        default=20, ge=0, description="Vehicles that `make up` simulates, each with a meter; 0: no simulator."
    )

    def ports(self) -> Ports:
        """The ports to use now. Raises `PortTaken` when a port that was asked for is somebody else's."""
        names = [f"{field.name}_port" for field in fields(Ports)]
        return Ports(*(pick(f"FLEET_{n.upper()}", getattr(self, n), n in self.model_fields_set) for n in names))
