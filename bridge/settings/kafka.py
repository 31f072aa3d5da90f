"""The settings of the Kafka source."""

from typing import ClassVar, Literal

from pydantic import Field

from bridge.settings.bridge import InstanceSettings
from bridge.settings.group import Group
from bridge.settings.groups import WindowSettings
from bridge.settings.values import CaFile, KafkaUrl


class KafkaTopicSettings(Group):
    """The Kafka cluster, and the topic of the readings in it."""

    title: ClassVar[str] = "Kafka"

    kafka_url: KafkaUrl = Field(
        default="kafka://127.0.0.1:9092",
        description="The Kafka cluster: kafka://[user:password@]host[:port][,...], kafkas:// for TLS. "
        "The user may create the topic, or it exists.",
    )
    kafka_sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism by which the user of the URL logs in."
    )
    kafka_ca_file: CaFile | None = Field(
        default=None, description="CA that signed the brokers' certificates (PEM); the system's when unset."
    )
    kafka_topic: str = Field(
        default="fleet-telemetry",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="The topic of the readings. The key of a record is the MQTT topic of its device.",
    )
    kafka_partitions: int = Field(
        default=12,
        ge=1,
        le=10_000,
        description="Partitions of the topic when it is created; at most so many bridges share the work.",
    )
    kafka_replicas: int = Field(
        default=1,
        ge=1,
        le=5,
        description="Replicas of the topic, 3 to survive the loss of a broker; a topic that has another number is "
        "refused.",
    )


class KafkaSettings(InstanceSettings, WindowSettings, KafkaTopicSettings):
    """All settings of the bridge's Kafka source."""

    kafka_group: str = Field(
        default="fleet-bridge",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="The consumer group: its bridges share the partitions, and its offsets outlive them.",
    )
    kafka_session_timeout_ms: int = Field(
        default=6_000,
        ge=1_000,
        le=300_000,
        description="Time after which the others take over the partitions of a bridge that was killed. Below 6000 the "
        "brokers need a lower group.min.session.timeout.ms.",
    )
    kafka_receipts: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="The topic to which receipts are published for records with a header receipt; none when unset.",
    )
