"""Bridges on a NATS cluster, and what its stream still keeps."""

import asyncio
import json
from collections.abc import Iterable

from bridge.reading import Reading
from local.nats import Nats
from local.ports import free_port
from tests.nats_devices import MqttDevice, nats_client


def settings(servers: Nats, database_url: str, **others: object) -> dict[str, object]:
    """The settings of a bridge that reads from the cluster."""
    return {
        "source": "jetstream",
        "nats_url": servers.bridge_url,
        "nats_replicas": servers.replicas,
        "database_url": database_url,
        "bridge_http_port": free_port(),
        **others,
    }


async def unacknowledged(servers: Nats, stream: str = "$MQTT_msgs") -> int:
    """The messages that the stream still keeps: with interest retention, those that were not acknowledged."""
    client = await nats_client(servers.bridge_url)
    try:
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5)
        return int(json.loads(answer.data)["state"]["messages"])
    finally:
        await client.close()


async def kept(servers: Nats, count: int, stream: str = "$MQTT_msgs") -> bool:
    """Whether it still keeps so many."""
    return await unacknowledged(servers, stream) == count


async def publish(url: str, readings: Iterable[Reading]) -> None:
    """Publish readings on one MQTT connection, and wait for all PUBACKs."""

    def connected() -> None:
        with MqttDevice(url, "publisher") as device:
            device.publish(readings)

    await asyncio.to_thread(connected)
