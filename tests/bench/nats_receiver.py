"""A bare consumer of a stream, a separate process: `python -m tests.bench.nats_receiver JSON`.

It reads with nats-py as fast as that can: a callback on a subscription, large requests, one acknowledgement for all
messages up to it. Prints `ready`, and ends when it has received `count` messages.
"""

import asyncio
import json
import sys

import nats
import structlog
import uvloop
from nats.aio.msg import Msg

from bridge.settings.jetstream import JetStreamSettings
from bridge.streams.jetstream_partitions import share_of
from bridge.url import split_nats
from tests.nats_streams import is_set_up
from tests.until import until

_BATCH = 20_000
_ACK_EVERY = 1_000


async def _receive(url: str, count: int, replicas: int) -> None:
    settings = JetStreamSettings(nats_replicas=replicas)
    await until(lambda: is_set_up(url, replicas), timeout_s=60)
    connection = await nats.connect(split_nats(url))
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.nats_stream}.{share_of(settings, 0).consumer}"
    inbox, done, received = connection.new_inbox(), asyncio.Event(), 0
    request = json.dumps({"batch": _BATCH, "expires": 60 * 10**9}).encode()

    async def take(message: Msg) -> None:
        nonlocal received
        if not message.reply:
            return
        received += 1
        if received % _ACK_EVERY == 0 or received == count:
            await connection.publish(message.reply, b"+ACK")
        if received % (_BATCH // 2) == 0:
            await connection.publish(subject, request, reply=inbox)
        if received == count:
            done.set()

    await connection.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.publish(subject, request, reply=inbox)
    await connection.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await done.wait()
    await connection.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the report
    uvloop.run(_receive(**json.loads(sys.argv[1])))
