"""What a PUBACK of a NATS cluster is worth: `python -m tests.bench.pubacks` prints the table of docs/streams.md.

Each row publishes with QoS 1, ends servers by SIGKILL after the last PUBACK, starts them again, and counts what the
stream still has. A SIGKILL leaves the operating system's memory intact, so it says nothing about a power failure.
"""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from bridge.streams.jetstream_client import Client
from bridge.url import split_nats
from local.nats import Nats
from tests.nats_devices import MqttDevice
from tests.nats_streams import is_set_up
from tests.until import until

_MESSAGES = 5_000
_STREAM = "$MQTT_msgs"


async def main() -> None:
    """Print a row for each number of nodes and `sync_interval`."""
    print("| nodes | `sync_interval` | PUBACKs/s | all killed | first one's disk lost too |")  # noqa: T201
    print("|---|---|---|---|---|")  # noqa: T201
    for nodes in (1, 3):
        for sync_interval in ("2m", "1s", "always"):
            with tempfile.TemporaryDirectory() as directory:
                servers = Nats(Path(directory) / "nats", nodes, sync_interval=sync_interval)
                print(await _row(servers, sync_interval), flush=True)  # noqa: T201


async def _row(servers: Nats, sync_interval: str) -> str:
    servers.start()
    try:
        await until(lambda: is_set_up(servers.bridge_url, servers.replicas), timeout_s=60)
        rate = await asyncio.to_thread(_published, servers)
        killed = await _kept_after_kill(servers)
        wiped = await _kept_after_kill(servers, wipe=True)
    finally:
        servers.stop()
    return f"| {len(servers.nodes)} | `{sync_interval}` | {rate:,.0f} | {killed:,} kept | {wiped:,} kept |"


def _published(servers: Nats) -> float:
    with MqttDevice(servers.mqtt_urls[0], "device") as device:
        begun = time.monotonic()
        device.send((f"fleet/vehicle/EV_{n % 100}/telemetry", b"%d" % n) for n in range(_MESSAGES))
        return _MESSAGES / (time.monotonic() - begun)


async def _kept_after_kill(servers: Nats, *, wipe: bool = False) -> int:
    for node in servers.nodes:
        node.process.kill()
    if wipe:
        shutil.rmtree(servers.nodes[0].store)
    servers.start()
    await until(lambda: is_set_up(servers.bridge_url, servers.replicas), timeout_s=60)
    return await _kept(servers)


async def _kept(servers: Nats) -> int:
    client = await Client.connect(split_nats(servers.bridge_url), "bench", None)
    try:
        return int((await client.ask(f"STREAM.INFO.{_STREAM}"))["state"]["messages"])
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
