"""Publishes notifications with QoS 1.

They are not retained: a device has one topic and may have several alarms, of which a retained message would show one.
"""

import ssl
from collections.abc import Sequence

from bridge.alarms.notification import Notification
from bridge.mqtt.publishing import publish_all
from bridge.mqtt.url import broker_of
from bridge.settings.mqtt import BrokerCaSettings


class Publisher:
    """Publishes to one broker."""

    def __init__(self, url: str, ca: BrokerCaSettings, timeout_s: float) -> None:
        self._broker = broker_of(url, lambda: ssl.create_default_context(cafile=ca.mqtt_ca_file))
        self._timeout_s = timeout_s

    async def publish(self, notifications: Sequence[Notification]) -> None:
        """Return when the broker has acknowledged all. Raises `NotPublished`."""
        messages = [(notification.topic, notification.body) for notification in notifications]
        await publish_all(self._broker, "fleet-keeper", messages, self._timeout_s)
