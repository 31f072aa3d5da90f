"""Bridges on a NATS cluster, and what its stream still keeps."""

import asyncio
import json
from collections.abc import Iterable

from bridge.reading import Reading
from bridge.settings.jetstream import JetStreamSettings
from bridge.streams.jetstream_client import ApiError, Client, NatsUnavailable
from bridge.streams.jetstream_setup import set_up
from bridge.url import split_nats
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


async def is_set_up(servers_url: str, replicas: int) -> bool:
    """Whether the cluster answers, and has the stream and the consumer of a bridge, which are made if need be."""
    settings = JetStreamSettings(nats_replicas=replicas)
    try:
        client = await Client.connect(split_nats(servers_url), "test", None)
    except NatsUnavailable:
        return False
    try:
        await set_up(client, settings)
    except (NatsUnavailable, ApiError):
        return False
    finally:
        await client.close()
    return True


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


async def limit(servers: Nats, stream: str, **limits: int) -> None:
    """Change the limits of the stream."""
    client = await nats_client(servers.bridge_url)
    try:
        info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)).data)
        changed = json.dumps({**info["config"], **limits}).encode()
        answer = json.loads((await client.request(f"$JS.API.STREAM.UPDATE.{stream}", changed, timeout=5)).data)
        assert "error" not in answer, answer
    finally:
        await client.close()
