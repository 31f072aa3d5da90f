"""The keeper's settings of alarms and their delivery."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bridge.settings.group import Group
from bridge.settings.values import MqttUrl, Seconds


class AlarmSettings(Group):
    """What is judged, and how alarms are delivered."""

    title: ClassVar[str] = "Alarms"

    alarms_every_s: Seconds = Field(default=15.0, description="How often the keeper judges the rules of alarms.")
    alarm_certificate_files: str = Field(
        default="",
        description="Certificates (PEM) whose expiry is judged and is a metric, separated by commas; none when empty.",
    )
    database_limit_gib: float | None = Field(
        default=None,
        ge=0.001,
        le=1e9,
        description="Size in GiB up to which the database may grow, for the forecast of the disk; none when unset.",
    )
    alarm_mqtt_url: MqttUrl | None = Field(
        default=None,
        description="Broker to which the keeper publishes alarms: mqtt[s]://[user:password@]host[:port]. "
        "None when unset.",
    )
    webhook_timeout_s: Seconds = Field(
        default=10.0, description="Maximum time of one request to a webhook; then it is sent again later."
    )
    alarm_delivery_max_age_h: float = Field(
        default=72.0,
        ge=0.001,
        le=8760,
        description="Time in hours after which an alarm that cannot be delivered is given up.",
    )
    webhook_refuse_local: bool = Field(
        default=False,
        description="Whether webhooks at loopback, link-local and private addresses are refused.",
    )

    @property
    def certificate_files(self) -> list[Path]:
        """The certificates as paths."""
        return [Path(name.strip()) for name in self.alarm_certificate_files.split(",") if name.strip()]
