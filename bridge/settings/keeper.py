"""What `python -m bridge keep` reads."""

from typing import ClassVar

from pydantic import Field

from bridge.settings.alarms import AlarmSettings
from bridge.settings.group import Group
from bridge.settings.groups import DatabaseSettings, IntervalSettings, LogSettings, PartitionSettings
from bridge.settings.mqtt import BrokerCaSettings
from bridge.settings.values import Port, Seconds


class KeeperPortSettings(Group):
    """The port of the keeper's health and metrics, which others need to know too."""

    title: ClassVar[str] = "Keeper"

    keeper_http_port: Port = Field(default=9101, description="Port of the keeper's health and metrics.")


class KeeperSettings(
    KeeperPortSettings,
    PartitionSettings,
    AlarmSettings,
    BrokerCaSettings,
    IntervalSettings,
    DatabaseSettings,
    LogSettings,
):
    """Of `bridge keep`."""

    keeper_http_host: str = Field(
        default="127.0.0.1", description="Address on which the keeper serves health and metrics."
    )
    keeper_timeout_s: Seconds = Field(
        default=30.0,
        description="Maximum time of one database command of the keeper, and of silence between two; then the database "
        "ends its session and a standby takes over.",
    )
    keeper_lock_timeout_ms: int = Field(
        default=100,
        ge=1,
        le=3_600_000,
        description="Maximum time that a command of the keeper waits for a lock; then the duty is tried again later.",
    )
    rejects_kept_days: int = Field(
        default=90, ge=7, le=36_500, description="Days after its arrival at which the keeper deletes a reject."
    )
    quarters_delay_s: Seconds = Field(
        default=60.0,
        description="Time after the end of a quarter hour at which the keeper summarizes it. For a later reading it "
        "summarizes it again.",
    )
