"""The settings of `python -m bridge relay`."""

from typing import ClassVar, Literal

from pydantic import Field

from bridge.settings.groups import LogSettings
from bridge.settings.mqtt import BrokerCaSettings
from bridge.settings.values import MqttUrl, Port


class RelaySettings(BrokerCaSettings, LogSettings):
    """All settings of `bridge relay`."""

    title: ClassVar[str] = "Relay"

    relay_name: str = Field(
        default="main",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="Names the relay's MQTT session, fleet-relay-NAME; two relays need two names.",
    )
    relay_target: Literal["kafka", "jetstream"] = Field(
        default="kafka", description="The stream into which the relay publishes; its settings are those of the source."
    )
    relay_mqtt_url: MqttUrl = Field(
        default="mqtt://127.0.0.1:1884",
        description="The broker that the relay reads from: mqtt[s]://[user:password@]host[:port].",
    )
    relay_receive_maximum: int = Field(
        default=20_000, ge=1, le=65535, description="Messages that may wait for the acknowledgement of the stream."
    )
    relay_session_expiry_s: int = Field(
        default=30 * 86_400,
        ge=1,
        le=4_294_967_295,
        description="MQTT Session Expiry Interval: how long the broker queues messages for a relay that is away.",
    )
    relay_http_port: Port = Field(default=9103, description="Port of the relay's health and metrics.")
    relay_http_host: str = Field(
        default="127.0.0.1", description="Address on which the relay serves health and metrics."
    )
