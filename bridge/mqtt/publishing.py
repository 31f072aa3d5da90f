"""Publishes a few messages over a connection of its own, and knows which broker has them."""

import asyncio
import secrets
from collections.abc import Sequence

import mqtt5

from bridge.mqtt.session import Event, Session
from bridge.mqtt.transport import ConnectionLost, Transport
from bridge.mqtt.url import Broker

_ACCEPTED = (mqtt5.PubAckReasonCode.SUCCESS, mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)


class NotPublished(Exception):
    """The broker does not have the messages, or not all of them; the text is the reason."""


async def publish_all(broker: Broker, name: str, messages: Sequence[tuple[str, bytes]], timeout_s: float) -> None:
    """Publish messages (topic, payload) with QoS 1; return when the broker has acknowledged all of them.

    `name` begins the client id. There may be as many messages as the broker's Receive Maximum. Raises `NotPublished`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _publish_all(broker, name, messages, timeout_s)
    except (ConnectionLost, OSError, TimeoutError, ValueError) as error:
        raise NotPublished(f"{type(error).__name__}: {error}") from error


async def _publish_all(broker: Broker, name: str, messages: Sequence[tuple[str, bytes]], timeout_s: float) -> None:
    waiting: set[int | None] = set()
    refused: list[str] = []
    done = asyncio.Event()

    def receive(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, mqtt5.PubAckPacket):
                waiting.discard(event.packet_id)
                if event.reason_code not in _ACCEPTED:
                    refused.append(event.reason_code.name)
                if not waiting:
                    done.set()

    session = Session(_greeting(broker, name))
    transport = Transport(session, receive, gathers=False)
    transport.closed.add_done_callback(lambda _: done.set())
    try:
        await transport.open(broker, timeout_s)
        for topic, payload in messages:
            waiting.add(session.publish(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE))
        transport.flush()
        await done.wait()
        if waiting:
            raise NotPublished(f"connection lost: {transport.closed.result()}")
        if refused:
            raise NotPublished(f"the broker refused {len(refused)} of {len(messages)} messages: {refused[0]}")
        session.disconnect()
    finally:
        transport.close()


def _greeting(broker: Broker, name: str) -> mqtt5.ConnectPacket:
    return mqtt5.ConnectPacket(
        f"{name}-{secrets.token_hex(8)}",
        username=broker.username,
        password=broker.password,
        clean_start=True,
        keep_alive=30,
    )
