"""The settings of `python -m simulator`; options of the same names override them."""

from typing import ClassVar, Literal

from pydantic import Field

from bridge.settings.group import Group
from bridge.settings.groups import AdministrationSettings, LogSettings
from bridge.settings.mqtt import BrokerCaSettings
from bridge.settings.values import HttpUrl, MqttUrl


class ApiClientSettings(Group):
    """The API that the simulator asks."""

    title: ClassVar[str] = "Simulator and clients"

    api_url: HttpUrl | None = Field(
        default=None, description="URL of the API; when unset, meters are not assigned and figures not compared."
    )
    api_key: str | None = Field(default=None, description="Key for the API.")


class SimulatorSettings(LogSettings, BrokerCaSettings, ApiClientSettings):
    """All settings of `simulator run` and `simulator replay`."""

    title: ClassVar[str] = "Simulator and clients"

    mqtt_url: MqttUrl = Field(
        default="mqtt://127.0.0.1:1883",
        description="The broker's listener for devices: mqtt[s]://[user:password@]host[:port].",
    )
    mqtt_version: Literal["5", "3.1.1"] = Field(
        default="5", description="Version of MQTT; a NATS cluster speaks 3.1.1 only."
    )
    mqtt_cert_file: str | None = Field(default=None, description="Certificate of the client (PEM), for mutual TLS.")
    mqtt_key_file: str | None = Field(default=None, description="Private key of the client's certificate (PEM).")


class VerifySettings(AdministrationSettings, ApiClientSettings):
    """All settings of `simulator verify`."""
