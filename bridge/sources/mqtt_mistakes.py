"""Messages with a mistaken topic: each is counted, and gets the topic that is meant."""

import structlog
from prometheus_client import CollectorRegistry, Counter

from bridge.sources.mqtt_topics import meant

log = structlog.get_logger(__name__)

_MOST_NAMED = 1_000
_MOST_KNOWN = 50_000


class Mistakes:
    """Corrects topics, and names their devices in the log."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._messages = Counter(
            "fleet_mqtt_mistaken_messages",
            "Messages with a topic that is not quite the device's telemetry topic, stored like others.",
            registry=registry,
        )
        self._named: set[str] = set()
        self.right: dict[str, str] = {}
        """Topics that are not mistaken, each as the same object, to be looked up before `corrected`; it is bounded."""

    def corrected(self, topic: str) -> str:
        """The topic, or the one that is meant by a mistaken one, which the log names once."""
        correct = meant(topic)
        if correct is None:
            if len(self.right) >= _MOST_KNOWN:
                self.right.clear()
            self.right[topic] = topic
            return topic
        self._messages.inc()
        if topic not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(topic)
            log.warning("message with a mistaken topic: correct the device", topic=topic)
        return correct
