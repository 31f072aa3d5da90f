"""Prometheus metrics of the JetStream source."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class JetStreamMetrics:
    """Counters and gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter("fleet_jetstream_messages", "Messages received.", registry=registry)
        self.acks = Counter("fleet_jetstream_acks", "Messages acknowledged.", registry=registry)
        self.stale_acks = Counter(
            "fleet_jetstream_stale_acks",
            "Messages not acknowledged because their connection was closed; the stream sends them again.",
            registry=registry,
        )
        self.receipts = Counter("fleet_jetstream_receipts", "Receipts published.", registry=registry)
        self.connects = Counter("fleet_jetstream_connects", "Connections that began to read.", registry=registry)
        self.out_of_order = Counter(
            "fleet_jetstream_out_of_order",
            "Connections given up because a message was lost on its way, or because another client reads from the "
            "consumer.",
            registry=registry,
        )
        self.consumer_created = Counter(
            "fleet_jetstream_consumer_created",
            "Times that the consumer was missing; messages that were published before are lost.",
            registry=registry,
        )
        self.connected = Gauge(
            "fleet_jetstream_connected", "Partitions of the stream that are being read.", registry=registry
        )
