"""The settings of `python -m bridge run` and `python -m bridge rejected replay`, without those of the sources."""

from typing import ClassVar

from pydantic import Field

from bridge.settings.group import Group
from bridge.settings.groups import (
    AdministrationSettings,
    BatchSettings,
    ClockSettings,
    LogSettings,
    QuotaSettings,
    WindowSettings,
    WriterSettings,
)
from bridge.settings.values import Port, Seconds


class InstanceSettings(Group):
    """Settings that the bridge and its source share."""

    title: ClassVar[str] = "Bridge"

    bridge_name: str = Field(
        default="main",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="Names the MQTT session and the lock; of two bridges with one name the second is on standby, "
        "unless the source divides the messages among them.",
    )
    stall_timeout_s: Seconds = Field(
        default=30.0,
        description="Maximum time without a commit while readings wait; then the bridge is not ready and the source "
        "reconnects.",
    )


class SourceSettings(Group):
    """The source of the bridge."""

    title: ClassVar[str] = "Bridge"

    source: str = Field(default="mqtt", description="The kind of source that the bridge reads messages from.")


class HealthPortSettings(Group):
    """The port of the bridge's health and metrics, which other programs need too."""

    title: ClassVar[str] = "Bridge"

    bridge_http_port: Port = Field(default=9100, description="Port of the bridge's health and metrics.")


class HealthSettings(HealthPortSettings):
    """The address on which the bridge serves health and metrics."""

    bridge_http_host: str = Field(
        default="127.0.0.1", description="Address on which the bridge serves health and metrics."
    )


class BridgeBatchSettings(BatchSettings):
    """The batches of the bridge."""

    batch_wait_ms: int = Field(
        default=15, ge=0, le=60_000, description="Bridge: maximum time in ms a reading waits for its batch to fill."
    )


class BridgeSettings(
    HealthSettings, SourceSettings, InstanceSettings, QuotaSettings, BridgeBatchSettings, WriterSettings, LogSettings
):
    """All settings of `bridge run`, without those of its source."""


class ReplaySettings(AdministrationSettings, ClockSettings, WindowSettings):
    """All settings of `bridge rejected replay`."""
