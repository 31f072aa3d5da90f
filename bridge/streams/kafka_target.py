"""Publishes messages as records of a Kafka topic, each acknowledged by all replicas that are in sync.

The key is the MQTT topic, which keeps the records of a device in one partition, and so in order. While the cluster is
away, the producer keeps the records and tries again. When one is not durable in time, this counts as a lost connection,
and there is a new producer: an old one may have numbers that the cluster does not accept any more.
"""

import asyncio
import time

from bridge.settings.kafka import KafkaTopicSettings
from bridge.streams.kafka_client import Producer, require
from bridge.streams.kafka_setup import cluster_of, set_up
from bridge.streams.port import Done, Message, StreamKind, StreamUnavailable

_SERVE_EVERY_S = 0.003


class KafkaTarget:
    """See `port.Stream`."""

    def __init__(self, settings: KafkaTopicSettings) -> None:
        require()
        self._settings = settings
        self._producer: Producer | None = None
        self._problem: str | None = None

    async def open(self) -> None:
        """See `port.Stream`."""
        await asyncio.to_thread(set_up, self._settings)
        self._producer, self._problem = Producer(cluster_of(self._settings)), None

    def publish(self, message: Message, done: Done) -> None:
        """See `port.Stream`."""
        if self._producer is None:
            raise StreamUnavailable("closed")

        def answered(problem: str | None) -> None:
            self._problem = self._problem or problem
            done(problem)

        try:
            self._producer.publish(
                self._settings.kafka_topic, message.topic.encode(), message.payload, _headers(message), answered
            )
        except BufferError:
            raise StreamUnavailable("too many records wait for the cluster") from None

    async def serve(self) -> str:
        """See `port.Stream`. Raises `StreamUnavailable` when a new producer is needed."""
        while self._producer is not None and self._problem is None:
            self._producer.serve()
            await asyncio.sleep(_SERVE_EVERY_S)
        return self._problem or "closed"

    async def close(self) -> None:
        """See `port.Stream`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.discard()


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = [("received", str(time.time_ns() // 1_000_000).encode())]
    if message.content_type is not None:
        headers.append(("content-type", message.content_type.encode()))
    if message.response_topic is not None:
        headers.append(("response-topic", message.response_topic.encode()))
    if message.correlation is not None:
        headers.append(("correlation-data", message.correlation))
    return headers


TARGET = StreamKind(KafkaTopicSettings, KafkaTarget)
