"""Messages over MQTT that are expensive to receive or to decode, and too many of them."""

import itertools
from collections.abc import Awaitable, Callable

import mqtt5

from tests.acceptance.attacks import payloads
from tests.acceptance.attacks.attack import Attack, Done, Target
from tests.acceptance.attacks.mqtt_wire import Device, Line, device

_LARGEST = payloads.LARGEST_MESSAGE
_OVERSIZED = 1_000_000
_LARGE_PROPERTIES = [("n" * 65_000, "v" * 65_000)]


async def connected(
    target: Target, done: Done, send: Callable[[Device], Awaitable[None]], *, reads: bool = True
) -> None:
    """Connect, let `send` send for as long as the broker takes it, and connect again when it closes the connection."""
    line = Line(target)
    while True:
        try:
            async with device(line, reads=reads) as one:
                await send(one)
        except OSError:
            done["cut"] += 1


def sending(
    make: Callable[[int], bytes], size_bytes: int = _LARGEST, distinct: int = 20
) -> Callable[[Target, Done], Awaitable[None]]:
    """An attack that publishes payloads of this size with QoS 0, as fast as the broker reads them.

    `distinct` of them are made before, so that the attacker's own computing does not slow it.
    """

    async def run(target: Target, done: Done) -> None:
        packets = [mqtt5.PublishPacket(target.topic, target.own(make(size_bytes))).write() for _ in range(distinct)]

        async def send(one: Device) -> None:
            for packet in itertools.cycle(packets):
                await one.send(packet)
                done["sent"] += 1

        await connected(target, done, send)

    return run


def acknowledged(
    make: Callable[[int], bytes], size_bytes: int = _LARGEST, distinct: int = 10
) -> Callable[[Target, Done], Awaitable[None]]:
    """The same with QoS 1: the broker keeps each for the bridge, which discards none."""

    async def run(target: Target, done: Done) -> None:
        packets = [
            mqtt5.PublishPacket(
                target.topic, target.own(make(size_bytes)), qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number
            ).write()
            for number in range(1, distinct + 1)
        ]

        async def send(one: Device) -> None:
            while True:
                for packet in packets:
                    await one.send(packet)
                await one.acknowledged(len(packets))
                done["acknowledged"] += len(packets)

        await connected(target, done, send, reads=False)

    return run


async def properties(target: Target, done: Done) -> None:
    """A tiny payload; the packet is not."""
    packets = [
        mqtt5.PublishPacket(target.topic, target.own(payloads.reading()), user_properties=_LARGE_PROPERTIES).write()
        for _ in range(200)
    ]

    async def send(one: Device) -> None:
        for packet in itertools.cycle(packets):
            await one.send(packet)
            done["sent"] += 1

    await connected(target, done, send)


async def correlation(target: Target, done: Done) -> None:
    """Each asks for a receipt, with the largest correlation data, and does not read it."""
    to = target.topic.replace("telemetry", "receipts")

    async def send(one: Device) -> None:
        await one.send(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(to, max_qos=mqtt5.QoS.AT_LEAST_ONCE)]).write())
        for _ in range(100_000):
            packet = mqtt5.PublishPacket(
                target.topic, target.own(payloads.reading()), response_topic=to, correlation_data=b"c" * 65_000
            ).write()
            await one.send(packet)
            done["sent"] += 1

    await connected(target, done, send, reads=False)


async def receipts(target: Target, done: Done) -> None:
    to = target.topic.replace("telemetry", "receipts")

    async def send(one: Device) -> None:
        await one.send(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(to, max_qos=mqtt5.QoS.AT_LEAST_ONCE)]).write())
        await one.subscribed()
        while True:
            packets = [
                mqtt5.PublishPacket(
                    target.topic,
                    target.own(payloads.reading()),
                    qos=mqtt5.QoS.AT_LEAST_ONCE,
                    packet_id=number,
                    response_topic=to,
                    correlation_data=b"%d" % number,
                ).write()
                for number in range(1, 501)
            ]
            await one.send(b"".join(packets))
            await one.acknowledged(len(packets))
            done["acknowledged"] += len(packets)

    await connected(target, done, send, reads=False)


def flooding(
    make: Callable[[], bytes], qos: mqtt5.QoS = mqtt5.QoS.AT_MOST_ONCE, bursts: int = 40
) -> Callable[[Target, Done], Awaitable[None]]:
    """An attack that publishes small payloads without waiting for PUBACKs, as fast as the broker reads them."""

    async def run(target: Target, done: Done) -> None:
        def packet(number: int) -> bytes:
            id_ = None if qos is mqtt5.QoS.AT_MOST_ONCE else number
            return mqtt5.PublishPacket(target.topic, target.own(make()), qos=qos, packet_id=id_).write()

        burst = [b"".join(packet(number) for number in range(1, 501)) for _ in range(bursts)]

        async def send(one: Device) -> None:
            for packets in itertools.cycle(burst):
                await one.send(packets)
                done["sent"] += 500

        await connected(target, done, send)

    return run


ATTACKS = (
    Attack("nested-messages", "messages", "250 kB of nested unknown fields", sending(payloads.nested)),
    Attack("deep-messages", "messages", "250 kB of fields of 400 levels", sending(payloads.deep)),
    Attack("nested-qos-1", "messages", "250 kB of nested unknown fields, QoS 1", acknowledged(payloads.nested)),
    Attack(
        "oversized-qos-1",
        "messages",
        "1 MB of nested unknown fields, QoS 1",
        acknowledged(payloads.nested, _OVERSIZED, 5),
    ),
    Attack(
        "noted-qos-1",
        "messages",
        "a reading with 16 kB of unknown fields, QoS 1",
        acknowledged(payloads.noted, 16_000, 200),
    ),
    Attack("wide-messages", "messages", "a reading with 15,000 fields", sending(payloads.wide)),
    Attack("damaged-messages", "messages", "1,000 readings, each second one damaged", sending(payloads.damaged)),
    Attack("open-string-messages", "messages", "250 kB of begun strings", sending(payloads.open_strings)),
    Attack("digit-messages", "messages", "250 kB of long numbers", sending(payloads.digits)),
    Attack("oversized", "messages", "1 MB of nested unknown fields", sending(payloads.nested, _OVERSIZED, 5)),
    Attack("backlogs", "messages", "1,000 valid readings", sending(payloads.readings), most_disk_mib=512),
    Attack("properties", "messages", "tiny readings with 130 kB of user properties", properties),
    Attack("correlation", "messages", "receipts with 65 kB of correlation data that are not read", correlation),
    Attack("receipts", "messages", "QoS 1 with receipts", receipts, most_disk_mib=512),
    Attack("flood", "messages", "valid readings, one a message", flooding(payloads.reading), most_disk_mib=512),
    Attack(
        "flood-qos-1",
        "messages",
        "valid readings, one a message, QoS 1, without waiting for PUBACKs",
        flooding(payloads.reading, mqtt5.QoS.AT_LEAST_ONCE, 200),
        most_disk_mib=512,
    ),
)
