"""The settings of the MQTT source."""

from typing import ClassVar

from pydantic import Field

from bridge.settings.bridge import InstanceSettings
from bridge.settings.group import Group
from bridge.settings.groups import WindowSettings
from bridge.settings.values import CaFile, MqttUrl


class BrokerCaSettings(Group):
    """The CA with which a client verifies the broker."""

    title: ClassVar[str] = "MQTT"

    mqtt_ca_file: CaFile | None = Field(
        default=None, description="CA that signed the broker's certificate (PEM); the system's when unset."
    )


class MqttSettings(InstanceSettings, WindowSettings, BrokerCaSettings):
    """All settings of the bridge's MQTT source."""

    title: ClassVar[str] = "MQTT"

    bridge_mqtt_url: MqttUrl = Field(
        default="mqtt://127.0.0.1:1884",
        description="The broker's bridge listener: mqtt[s]://[user:password@]host[:port].",
    )
    bridge_client_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,120}$",
        description="MQTT client id; fleet-bridge-NAME when unset. A client that knows it and has an account can take "
        "the session over: where others may connect, make it a secret such as fleet-bridge-NAME-RANDOM.",
    )
    mqtt_receive_maximum: int = Field(
        default=20_000,
        ge=1,
        le=65535,
        description="Unacknowledged messages that the broker may send (Receive Maximum); at least twice the message "
        "rate times the commit latency.",
    )
    mqtt_keep_alive_s: int = Field(default=30, ge=1, le=65535, description="MQTT Keep Alive.")
    mqtt_session_expiry_s: int = Field(
        default=30 * 86_400,
        ge=1,
        le=4_294_967_295,
        description="MQTT Session Expiry Interval: how long the broker queues messages for a disconnected bridge; "
        "4294967295: it never expires.",
    )

    @property
    def client_id(self) -> str:
        """The MQTT client id: fixed for each bridge name, so that the session outlives the process."""
        return self.bridge_client_id or f"fleet-bridge-{self.bridge_name}"

    @property
    def status_topic(self) -> str:
        """The topic of the bridge's retained status."""
        return f"fleet/bridge/{self.bridge_name}/status"
