"""Brings the stream and its durable consumers into being, so that nothing is acknowledged and then discarded.

The stream keeps a message until its consumers have acknowledged it, and a message for which there is no consumer not
at all. Therefore the stream gets its subjects, and more partitions, only after the consumers.
"""

from typing import Any

import structlog

from bridge.errors import Misconfigured
from bridge.settings.jetstream import NatsStreamSettings
from bridge.streams.jetstream_client import ApiError, Client
from bridge.streams.jetstream_partitions import Share, partitions_of, share_of, transform
from bridge.streams.jetstream_subjects import stream_subjects

log = structlog.get_logger(__name__)

_NOT_FOUND = 404
_ACK_WAIT_NS = 120 * 10**9
"""Time after which the server sends a message again; a connection begins with a reset, which does not wait for it."""


async def set_up(client: Client, settings: NatsStreamSettings) -> bool:
    """Make the stream and the consumers unless they exist; True when one is new and may have missed messages.

    Raises `Misconfigured` when the stream cannot keep the promise.
    """
    try:
        config = await _stream(client, settings)
        divided = partitions_of(config)
        made = [await _consumer(client, settings, share_of(settings, n)) for n in range(settings.nats_partitions)]
        subjects = stream_subjects(settings.nats_stream)
        if not set(subjects) <= set(config["subjects"]) or divided < settings.nats_partitions:
            wanted = {**config, "subjects": subjects, "subject_transform": transform(settings)}
            await client.ask(f"STREAM.UPDATE.{settings.nats_stream}", wanted)
    except ApiError as error:
        if error.is_transient:
            raise
        raise Misconfigured(f"FLEET_NATS_STREAM: {error}") from None
    return any(made[:divided])


async def _stream(client: Client, settings: NatsStreamSettings) -> dict[str, Any]:
    """The stream's configuration."""
    name = settings.nats_stream
    try:
        config: dict[str, Any] = (await client.ask(f"STREAM.INFO.{name}"))["config"]
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        wanted = {
            "name": name,
            "retention": "interest",
            "storage": "file",
            "discard": "new",  # a full stream refuses messages instead of losing the oldest
            "num_replicas": settings.nats_replicas,
        }
        config = (await client.ask(f"STREAM.CREATE.{name}", wanted))["config"]
        log.info("stream created", stream=name, replicas=settings.nats_replicas)
    _require_safety(config, settings)
    return config


def _require_safety(config: dict[str, Any], settings: NatsStreamSettings) -> None:
    name, replicas = settings.nats_stream, config["num_replicas"]
    if replicas != settings.nats_replicas:
        raise Misconfigured(
            f"FLEET_NATS_REPLICAS: the stream {name} has {replicas} replicas instead of {settings.nats_replicas}; "
            f"set it to {replicas}, or change the stream: nats stream edit '{name}' --replicas={settings.nats_replicas}"
        )
    if (partitions := partitions_of(config)) > settings.nats_partitions:
        raise Misconfigured(
            f"FLEET_NATS_PARTITIONS: the stream {name} has {partitions} partitions instead of "
            f"{settings.nats_partitions}; set it to {partitions}"
        )
    if config["storage"] != "file":
        raise Misconfigured(f"FLEET_NATS_STREAM: the stream {name} is in memory: choose one with file storage")
    if config["retention"] == "workqueue":
        raise Misconfigured(f"FLEET_NATS_STREAM: the stream {name} is a work queue: choose one with interest retention")


async def _consumer(client: Client, settings: NatsStreamSettings, share: Share) -> bool:
    """Make the consumer, or change it to what this version needs; True when there was none."""
    name = f"{settings.nats_stream}.{share.consumer}"
    wanted: dict[str, Any] = {
        "durable_name": share.consumer,
        "deliver_policy": "all",
        "ack_policy": "all",
        "ack_wait": _ACK_WAIT_NS,
        "max_deliver": -1,
        "max_ack_pending": share.window,
        "filter_subjects": share.filters,
        "num_replicas": 0,  # as many as the stream
    }
    try:
        config = (await client.ask(f"CONSUMER.INFO.{name}"))["config"]
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        await _make(client, settings.nats_stream, wanted)
        return True
    if any(config.get(field) != value for field, value in wanted.items()):
        await _make(client, settings.nats_stream, wanted)
    return False


async def _make(client: Client, stream: str, wanted: dict[str, Any]) -> None:
    name = f"{stream}.{wanted['durable_name']}"
    await client.ask(f"CONSUMER.DURABLE.CREATE.{name}", {"stream_name": stream, "config": wanted})


async def rewind(client: Client, stream: str, consumer: str) -> None:
    """Let the consumer send all that is not acknowledged again, in order, numbered from 1."""
    await client.ask(f"CONSUMER.RESET.{stream}.{consumer}")
