"""The settings of a stream in a NATS cluster, and of the source that reads it."""

from typing import ClassVar

from pydantic import Field

from bridge.settings.bridge import InstanceSettings
from bridge.settings.group import Group
from bridge.settings.groups import WindowSettings
from bridge.settings.values import CaFile, NatsUrl


class NatsStreamSettings(Group):
    """The NATS cluster, and the stream of the readings in it with its consumers."""

    title: ClassVar[str] = "JetStream"

    nats_url: NatsUrl = Field(
        default="nats://127.0.0.1:4222",
        description="The NATS cluster: nats://[user:password@]host[:port][,...], tls:// for TLS. "
        "The user may create streams.",
    )
    nats_ca_file: CaFile | None = Field(
        default=None, description="CA that signed the servers' certificates (PEM); the system's when unset."
    )
    nats_stream: str = Field(
        default="$MQTT_msgs",
        pattern=r"^[A-Za-z0-9_$-]{1,100}$",
        description="The stream that the bridge reads. $MQTT_msgs has what devices publish to the cluster by MQTT; any "
        "other one has what is published to fleet.*.*.telemetry by NATS's own protocol.",
    )
    nats_consumer: str = Field(
        default="fleet-bridge",
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="Durable consumer on the stream: its position outlives bridges.",
    )
    nats_replicas: int = Field(
        default=1,
        ge=1,
        le=5,
        description="Replicas of the stream and of its consumer, 3 to survive the loss of a node; the bridge refuses a "
        "stream that has another number.",
    )
    nats_partitions: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Parts into which the stream divides the devices. Each is read by one bridge at a time, so that as "
        "many bridges of one name can share the work. It can be raised later, and not be lowered.",
    )
    nats_window: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="Unacknowledged messages that the stream may send; at least twice the message rate times the "
        "commit latency.",
    )


class JetStreamSettings(InstanceSettings, WindowSettings, NatsStreamSettings):
    """All settings of the bridge's JetStream source."""
