"""Counters and gauges of the MQTT source for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class MqttMetrics:
    """What the MQTT source sees."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter("fleet_mqtt_messages", "PUBLISH packets received.", registry=registry)
        self.acks = Counter("fleet_mqtt_acks", "PUBACKs sent.", registry=registry)
        self.stale_acks = Counter(
            "fleet_mqtt_stale_acks", "Acks dropped because their connection was gone.", registry=registry
        )
        self.receipts = Counter("fleet_mqtt_receipts", "Receipts published.", registry=registry)
        self.connects = Counter("fleet_mqtt_connects", "Connections that the broker accepted.", registry=registry)
        self.connect_alarms = Counter(
            "fleet_mqtt_connect_alarms",
            "Minutes with so many connections that another client may have our client id.",
            registry=registry,
        )
        self.session_lost = Counter(
            "fleet_mqtt_session_lost",
            "Connections for which the broker had no session: its queue, if there was one, is gone.",
            registry=registry,
        )
        self.taken_over = Counter(
            "fleet_mqtt_taken_over", "Connections lost to another client with our client id.", registry=registry
        )
        self.broker_dropped = Gauge(
            "fleet_broker_dropped_messages", "The broker's own count of messages it dropped.", registry=registry
        )
        self.connected = Gauge("fleet_mqtt_connected", "1 while subscribed.", registry=registry)
