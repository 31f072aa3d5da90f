"""Prometheus metrics of the MQTT source."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.sources.mqtt_mistakes import Mistakes


class MqttMetrics:
    """Counters and gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter("fleet_mqtt_messages", "PUBLISH packets received.", registry=registry)
        self.acks = Counter("fleet_mqtt_acks", "PUBACKs sent.", registry=registry)
        self.stale_acks = Counter(
            "fleet_mqtt_stale_acks", "PUBACKs not sent because their connection was closed.", registry=registry
        )
        self.receipts = Counter("fleet_mqtt_receipts", "Receipts published.", registry=registry)
        self.notices = Counter(
            "fleet_mqtt_reject_notices", "Notices of rejected readings published to their devices.", registry=registry
        )
        self.connects = Counter("fleet_mqtt_connects", "Connections that the broker accepted.", registry=registry)
        self.connect_alarms = Counter(
            "fleet_mqtt_connect_alarms",
            "Minutes with so many connections that another client may use the same client id.",
            registry=registry,
        )
        self.session_lost = Counter(
            "fleet_mqtt_session_lost",
            "Connections for which the broker had no session; messages that it had queued are lost.",
            registry=registry,
        )
        self.taken_over = Counter(
            "fleet_mqtt_taken_over",
            "Connections taken over by another client with the same client id.",
            registry=registry,
        )
        self.broker_dropped = Gauge(
            "fleet_broker_dropped_messages",
            "Messages that the broker has dropped, by its own count.",
            registry=registry,
        )
        self.broker_subscriptions = Gauge(
            "fleet_broker_subscriptions", "Subscriptions of all clients, by the broker's own count.", registry=registry
        )
        self.broker_shared = Gauge(
            "fleet_broker_shared_subscriptions",
            "Shared subscriptions ($share), by the broker's own count; no part of this system has one.",
            registry=registry,
        )
        self.expiring = Counter(
            "fleet_mqtt_expiring_messages",
            "Messages with a Message Expiry Interval, which the broker may discard although it acknowledged them.",
            registry=registry,
        )
        self.mistakes = Mistakes(registry)
        self.discarded = Counter(
            "fleet_mqtt_discarded_messages",
            "Messages with QoS 0 that were discarded because their device sent more than its share.",
            registry=registry,
        )
        self.connected = Gauge("fleet_mqtt_connected", "1 while connected and subscribed.", registry=registry)
