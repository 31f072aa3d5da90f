"""What a device can make the broker keep or compute."""

import asyncio
import itertools

import mqtt5

from tests.acceptance.attacks import payloads
from tests.acceptance.attacks.attack import Attack, Done, Target, repeat
from tests.acceptance.attacks.messages import connected
from tests.acceptance.attacks.mqtt_wire import ADDRESS, Device, Line, device

_FILTERS_A_PACKET = 500


def _own(target: Target) -> mqtt5.TopicFilter:
    return mqtt5.TopicFilter(target.topic, max_qos=mqtt5.QoS.AT_LEAST_ONCE)


async def _queued(target: Target, done: Done, packet: bytes) -> None:
    """Publish to oneself and acknowledge nothing: the broker queues for the session, also between connections."""
    line = Line(target)
    while True:
        try:
            async with device(line, receive_max=1, session_expiry_s=3_600, reads=False) as one:
                await one.send(mqtt5.SubscribePacket(1, [_own(target)]).write())
                await one.subscribed()
                while True:
                    await one.send(packet)
                    done["sent"] += 1
        except OSError:
            done["cut"] += 1


async def queued_properties(target: Target, done: Done) -> None:
    largest = mqtt5.PublishPacket(target.topic, b"1", user_properties=[("n" * 60_000, "v" * 60_000)] * 2).write()
    await _queued(target, done, largest)


async def queued_empty_properties(target: Target, done: Done) -> None:
    """The payload is all that `max_queued_bytes` counts; each property takes many times its five bytes."""
    packet = mqtt5.PublishPacket(target.topic, b"1", user_properties=[("", "")] * 50_000).write()
    await _queued(target, done, packet)


async def queued_payloads(target: Target, done: Done) -> None:
    await _queued(target, done, mqtt5.PublishPacket(target.topic, payloads.garbage(100_000)).write())


async def _subscribe(target: Target, done: Done, pattern: str) -> None:
    """100,000 filters that match the attacker's topic, in a session that outlives the connection."""
    numbers = itertools.count()
    line = Line(target)
    while True:
        try:
            async with device(line, session_expiry_s=3_600) as one:
                for packet_id in itertools.cycle(range(1, 65_536)):
                    filters = [mqtt5.TopicFilter(pattern.format(next(numbers))) for _ in range(_FILTERS_A_PACKET)]
                    await one.send(mqtt5.SubscribePacket(packet_id, filters).write())
                    done["subscriptions"] += _FILTERS_A_PACKET
                    await one.send(mqtt5.PublishPacket(target.topic, target.own(payloads.reading())).write())
                    if done["subscriptions"] >= 200_000:
                        await asyncio.sleep(0.05)
        except OSError:
            done["cut"] += 1


async def shared_subscriptions(target: Target, done: Done) -> None:
    await _subscribe(target, done, "$share/g{}/" + target.topic)


async def shared_wildcards(target: Target, done: Done) -> None:
    """They match every device's topic."""
    await _subscribe(target, done, "$share/g{}/#")


async def deep_filters(target: Target, done: Done) -> None:
    await _subscribe(target, done, target.topic.replace("telemetry", "{}") + "/+" * 150)


async def handshakes(target: Target, done: Done) -> None:
    """Connections that never begin TLS, or never finish it."""

    async def once(number: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.tls_port, local_addr=ADDRESS)
        try:
            if number % 2:
                writer.write(bytes.fromhex("16030100c8010000c40303"))
            await reader.read(1)
            return "ended"
        finally:
            writer.transport.abort()

    await repeat(2_000, once, done)


async def sessions(target: Target, done: Done) -> None:
    """Connect with a large will, subscribe and go away without a word, again and again."""
    line = Line(target)
    will = mqtt5.Will(target.topic, payload=payloads.garbage(50_000), user_properties=[("n" * 60_000, "v" * 60_000)])
    while True:
        try:
            async with device(line, session_expiry_s=3_600, reads=False, will=will) as one:
                await one.send(mqtt5.SubscribePacket(1, [_own(target)]).write())
                await one.subscribed()
                done["connected"] += 1
        except OSError:
            done["cut"] += 1


async def unread_deliveries(target: Target, done: Done) -> None:
    """Messages to oneself with QoS 0 on a connection that is not read."""
    packet = mqtt5.PublishPacket(target.topic, payloads.garbage(50_000)).write()

    async def send(one: Device) -> None:
        await one.send(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(target.topic)]).write())
        while True:
            await one.send(packet)
            done["sent"] += 1

    await connected(target, done, send, reads=False)


ATTACKS = (
    Attack("queued-properties", "broker", "messages to oneself: one byte, 240 kB of properties", queued_properties),
    Attack("queued-empty", "broker", "the same with 50,000 empty properties", queued_empty_properties),
    Attack("queued-payloads", "broker", "messages to oneself of 100 kB that are not acknowledged", queued_payloads),
    Attack("unread-deliveries", "broker", "messages to oneself that are not read", unread_deliveries),
    Attack("shared-subscriptions", "broker", "200,000 shared subscriptions to one's topic", shared_subscriptions),
    Attack("shared-wildcards", "broker", "200,000 shared subscriptions to all topics", shared_wildcards),
    Attack("deep-filters", "broker", "200,000 subscriptions of 150 levels", deep_filters),
    Attack("handshakes", "broker", "2,000 connections that do not finish TLS", handshakes),
    Attack("sessions", "broker", "connections with a will of 170 kB that come and go", sessions),
)
