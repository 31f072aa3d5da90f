"""`python -m bridge relay`: from an MQTT broker into Kafka, acknowledged to the broker after Kafka has acknowledged.

Nothing is decoded: a message that cannot be a reading travels too, and the bridge that reads the topic judges it. The
key of a record is the MQTT topic. The broker keeps what is not acknowledged, so a relay that is killed publishes some
messages again, which the key of the history absorbs. While Kafka is away, the Receive Maximum bounds what waits, and
the broker queues the rest.
"""

import asyncio
import contextlib
import time

import structlog
from prometheus_client import Counter, Gauge

from bridge import health
from bridge.metrics import process_registry
from bridge.settings.relay import RelaySettings
from bridge.sources.kafka_client import KafkaUnavailable, Producer, require
from bridge.sources.kafka_setup import cluster_of, set_up
from bridge.sources.mqtt_raw import Done, RawMessage, RawMqtt

log = structlog.get_logger(__name__)

_SERVE_EVERY_S = 0.003
_SET_UP_AGAIN_S = 1.0
_STOP_S = 10.0


class KafkaReceiver:
    """Publishes each message as a record with the topic as its key, and with what it carried in the headers."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer, self._topic = producer, topic

    def publish(self, message: RawMessage, done: Done) -> None:
        """See `mqtt_raw.Receiver`."""
        headers = [("received", str(time.time_ns() // 1_000_000).encode())]
        if message.content_type is not None:
            headers.append(("content-type", message.content_type.encode()))
        if message.response_topic is not None:
            headers.append(("response-topic", message.response_topic.encode()))
        if message.correlation is not None:
            headers.append(("correlation-data", message.correlation))
        try:
            self._producer.publish(self._topic, message.topic.encode(), message.payload, headers, done)
        except KafkaUnavailable as error:
            done(str(error))


class Relay:
    """One relay process."""

    def __init__(self, settings: RelaySettings) -> None:
        require()
        self._settings = settings
        self._registry = registry = process_registry()
        self._acks = Counter("fleet_relay_acks", "PUBACKs sent: messages that the stream has.", registry=registry)
        Gauge(
            "fleet_relay_waiting", "Messages that wait for the acknowledgement of the stream.", registry=registry
        ).set_function(lambda: self._mqtt.waiting)
        self._producer = Producer(cluster_of(settings))
        receiver = KafkaReceiver(self._producer, settings.kafka_topic)
        self._mqtt = RawMqtt(settings, receiver, self._acks.inc)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; then acknowledge what has arrived, and disconnect. Raises `Misconfigured`."""
        settings = self._settings
        host, port = settings.relay_http_host, settings.relay_http_port
        async with health.serving(host, port, "FLEET_RELAY_HTTP", self._registry, self._not_ready):
            if not await self._set_up(stop):
                return
            serving, receiving = asyncio.create_task(self._serve()), asyncio.create_task(self._mqtt.run())
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({serving, receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._mqtt.stop_reading()
                await self._drained()
                await self._mqtt.close()
                for work in (serving, receiving):
                    if work.done():
                        work.result()
            finally:
                for task in (serving, receiving, stopping):
                    task.cancel()
                await asyncio.gather(serving, receiving, stopping, return_exceptions=True)

    async def _set_up(self, stop: asyncio.Event) -> bool:
        """Wait for the cluster and the topic; False when stopped before."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(set_up, self._settings)
            except KafkaUnavailable as error:
                log.warning("Kafka unavailable", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SET_UP_AGAIN_S):
                        await stop.wait()
            else:
                return True
        return False

    async def _serve(self) -> None:
        """Acknowledge what Kafka has acknowledged."""
        while True:
            self._producer.serve()
            self._mqtt.acknowledge()
            await asyncio.sleep(_SERVE_EVERY_S)

    async def _drained(self) -> None:
        """Wait a moment until all is acknowledged."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._mqtt.waiting:  # noqa: ASYNC110  # PUBACKs are sent by `_serve`, at the same interval
                    await asyncio.sleep(_SERVE_EVERY_S)

    def _not_ready(self) -> str | None:
        return None if self._mqtt.connected else "not connected to the broker"
