"""Prometheus metrics of the Kafka source."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class KafkaMetrics:
    """Counters and gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter("fleet_kafka_messages", "Records received.", registry=registry)
        self.acks = Counter("fleet_kafka_acks", "Records settled, whose offset may be committed.", registry=registry)
        self.stale_acks = Counter(
            "fleet_kafka_stale_acks",
            "Records settled after their partition was revoked; its next owner reads them again.",
            registry=registry,
        )
        self.receipts = Counter("fleet_kafka_receipts", "Receipts published.", registry=registry)
        self.commits_failed = Counter(
            "fleet_kafka_commits_failed", "Commits of offsets that the cluster refused.", registry=registry
        )
        self.connects = Counter("fleet_kafka_connects", "Times that this bridge joined the group.", registry=registry)
        self.rebalances = Counter(
            "fleet_kafka_rebalances", "Assignments and revocations of partitions.", registry=registry
        )
        self.lost = Counter(
            "fleet_kafka_lost_records",
            "Records that the topic no longer had when their turn came: its retention deleted them.",
            registry=registry,
        )
        self.partitions = Gauge("fleet_kafka_partitions", "Partitions that this bridge reads.", registry=registry)
        self.lag = Gauge(
            "fleet_kafka_lag_records",
            "Records in the partitions of this bridge that are not in the database yet.",
            registry=registry,
        )
        self.connected = Gauge("fleet_kafka_connected", "1 while connected to the cluster.", registry=registry)
