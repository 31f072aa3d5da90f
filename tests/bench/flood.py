"""The load generator, a separate process: `python -m tests.bench.flood JSON`.

Prints `ready` when everything is prepared, waits for a line, publishes, and reports its begin and its result. Without a
rate every packet is encoded beforehand, so that the flood costs little more than sending.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import uvloop

from tests.bench import publisher311
from tests.bench.load import Load
from tests.bench.publisher import Publisher, publish_packet

_WINDOW = 4_000
_CHUNK = 100
_PACKET_IDS = 65_000  # much larger than the window, so that an id is free before it is used again


class Order(NamedTuple):
    """What to publish, and where; `rate` is in readings per second, None for unlimited."""

    url: str
    messages: int
    devices: int
    now: str
    per_message: int
    stride: int
    step_s: int
    rate: float | None
    version: str = "5"
    """Of MQTT."""


def _chunks(load: Load, version: str) -> Iterator[tuple[int, bytes]]:
    """How many messages, and their packets."""
    encode = publish_packet if version == "5" else publisher311.publish_packet
    for start in range(0, load.messages, _CHUNK):
        numbers = range(start, min(start + _CHUNK, load.messages))
        yield len(numbers), b"".join(encode(*load.message(n), n % _PACKET_IDS + 1) for n in numbers)


async def _publish(order: Order) -> None:
    now = datetime.fromisoformat(order.now)
    load = Load(order.messages, order.devices, now, order.per_message, order.stride, order.step_s)
    chunks = _chunks(load, order.version) if order.rate else iter(list(_chunks(load, order.version)))
    kind = Publisher if order.version == "5" else publisher311.Publisher311
    publisher = await kind.open(order.url, f"bench-{time.time_ns()}")
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    began, began_cpu = time.monotonic(), time.process_time()
    sent = 0
    for count, packets in chunks:
        await publisher.until_acked(sent + count - _WINDOW)
        publisher.send(packets)
        sent += count
        due = began + sent * order.per_message / order.rate if order.rate else 0.0
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await publisher.until_acked(sent)
    took_s = time.monotonic() - began
    cpu_us = (time.process_time() - began_cpu) / load.readings * 1e6
    _say(json.dumps({"began": began, "rate": load.readings / took_s, "cpu_us": cpu_us}))
    publisher.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_publish(Order(**json.loads(sys.argv[1]))))
