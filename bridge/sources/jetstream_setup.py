"""Brings the stream and its durable consumer into being, so that nothing is acknowledged and then discarded.

The stream keeps a message until its consumers have acknowledged it, and a message for which there is no consumer not
at all. Therefore the stream gets its subjects only after the consumer.
"""

from typing import Any

import structlog

from bridge.errors import Misconfigured
from bridge.settings.jetstream import JetStreamSettings
from bridge.sources.jetstream_client import ApiError, Client
from bridge.sources.jetstream_subjects import filters, stream_subjects

log = structlog.get_logger(__name__)

_NOT_FOUND = 404
_ACK_WAIT_NS = 120 * 10**9
"""Time after which the server sends a message again; a connection begins with a reset, which does not wait for it."""


async def set_up(client: Client, settings: JetStreamSettings) -> bool:
    """Make the stream and the consumer unless they exist; True when the consumer is new.

    Raises `Misconfigured` when the stream cannot keep the promise.
    """
    try:
        config = await _stream(client, settings)
        is_new = await _consumer(client, settings)
        subjects = stream_subjects(settings.nats_stream)
        if not set(subjects) <= set(config["subjects"]):
            await client.ask(f"STREAM.UPDATE.{settings.nats_stream}", {**config, "subjects": subjects})
    except ApiError as error:
        if error.is_transient:
            raise
        raise Misconfigured(f"FLEET_NATS_STREAM: {error}") from None
    return is_new


async def _stream(client: Client, settings: JetStreamSettings) -> dict[str, Any]:
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


def _require_safety(config: dict[str, Any], settings: JetStreamSettings) -> None:
    name, replicas = settings.nats_stream, config["num_replicas"]
    if replicas != settings.nats_replicas:
        raise Misconfigured(
            f"FLEET_NATS_REPLICAS: the stream {name} has {replicas} replicas instead of {settings.nats_replicas}; "
            f"set it to {replicas}, or change the stream: nats stream edit '{name}' --replicas={settings.nats_replicas}"
        )
    if config["storage"] != "file":
        raise Misconfigured(f"FLEET_NATS_STREAM: the stream {name} is in memory: choose one with file storage")
    if config["retention"] == "workqueue":
        raise Misconfigured(f"FLEET_NATS_STREAM: the stream {name} is a work queue: choose one with interest retention")


async def _consumer(client: Client, settings: JetStreamSettings) -> bool:
    """Make the consumer, or change it to what this version needs; True when there was none."""
    name = f"{settings.nats_stream}.{settings.nats_consumer}"
    wanted: dict[str, Any] = {
        "durable_name": settings.nats_consumer,
        "deliver_policy": "all",
        "ack_policy": "all",
        "ack_wait": _ACK_WAIT_NS,
        "max_deliver": -1,
        "max_ack_pending": settings.nats_window,
        "filter_subjects": filters(settings.nats_stream),
        "num_replicas": 0,  # as many as the stream
    }
    try:
        config = (await client.ask(f"CONSUMER.INFO.{name}"))["config"]
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        await _make(client, settings, wanted)
        return True
    if any(config.get(field) != value for field, value in wanted.items()):
        await _make(client, settings, wanted)
    return False


async def _make(client: Client, settings: JetStreamSettings, wanted: dict[str, Any]) -> None:
    name = f"{settings.nats_stream}.{settings.nats_consumer}"
    await client.ask(f"CONSUMER.DURABLE.CREATE.{name}", {"stream_name": settings.nats_stream, "config": wanted})


async def rewind(client: Client, settings: JetStreamSettings) -> None:
    """Let the consumer send all that is not acknowledged again, in order, numbered from 1."""
    await client.ask(f"CONSUMER.RESET.{settings.nats_stream}.{settings.nats_consumer}")
