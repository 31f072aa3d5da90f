"""The packets that the bridge's session sends of itself, and what it subscribes to."""

from urllib.parse import unquote, urlsplit

import mqtt5

from bridge.contract import KINDS
from bridge.settings import Settings

TELEMETRY = tuple(kind.topic_filter for kind in KINDS)
BROKER_DROPPED = "$SYS/broker/publish/messages/dropped"
_SUBSCRIBE_ID, _STATUS_ID = 1, 2
_GRANTED = (
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE,
)


def connect_packet(settings: Settings) -> mqtt5.ConnectPacket:
    """Ask for the durable session, with a window for messages that wait for their commit."""
    url = urlsplit(settings.bridge_mqtt_url)
    return mqtt5.ConnectPacket(
        settings.client_id,
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password).encode() if url.password else None,
        clean_start=False,
        session_expiry_interval=settings.session_expiry_s,
        receive_max=settings.receive_maximum,
        keep_alive=settings.keep_alive_s,
        will=mqtt5.Will(settings.status_topic, payload=b"offline", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
    )


def subscribe_packet() -> mqtt5.SubscribePacket:
    """All telemetry, and the broker's count of what it dropped."""
    filters = [
        mqtt5.TopicFilter(
            pattern,
            max_qos=mqtt5.QoS.AT_LEAST_ONCE,
            retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
        )
        for pattern in TELEMETRY
    ]
    filters.append(mqtt5.TopicFilter(BROKER_DROPPED, max_qos=mqtt5.QoS.AT_MOST_ONCE))
    return mqtt5.SubscribePacket(_SUBSCRIBE_ID, filters)


def refused_filters(packet: mqtt5.SubAckPacket) -> list[str]:
    """Why the broker does not grant the telemetry; empty when it does."""
    return [code.name for code in packet.reason_codes[: len(TELEMETRY)] if code not in _GRANTED]


def status_packet(settings: Settings, status: bytes) -> mqtt5.PublishPacket:
    """The bridge's state, retained for whoever watches it."""
    return mqtt5.PublishPacket(
        settings.status_topic, status, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True, packet_id=_STATUS_ID
    )
