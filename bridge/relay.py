"""`python -m bridge relay`: from an MQTT broker into a stream, acknowledged to the broker after the stream has it.

Nothing is decoded: a message that cannot be a reading travels too, and the bridge that reads the stream judges it. The
broker keeps what is not acknowledged, so a relay that is killed publishes some messages again, which the stream or the
key of the history absorbs. While the stream is away or full, the Receive Maximum bounds what waits, and the broker
queues the rest.
"""

import asyncio
import contextlib

from prometheus_client import Counter, Gauge

from bridge import health
from bridge.metrics import process_registry
from bridge.settings.relay import RelaySettings
from bridge.sources.mqtt_mistakes import Mistakes
from bridge.sources.mqtt_raw import RawMqtt
from bridge.streams.port import Stream
from bridge.streams.publishing import Publisher

_ACKNOWLEDGE_EVERY_S = 0.003
_STOP_S = 10.0


class Relay:
    """One relay process."""

    def __init__(self, settings: RelaySettings, stream: Stream) -> None:
        self._settings = settings
        self._registry = registry = process_registry()
        self._acks = Counter("fleet_relay_acks", "PUBACKs sent: messages that the stream has.", registry=registry)
        Gauge(
            "fleet_relay_waiting", "Messages that wait for the acknowledgement of the stream.", registry=registry
        ).set_function(lambda: self._mqtt.waiting)
        self._publisher = Publisher(stream)
        self._mqtt = RawMqtt(settings, self._publisher, Mistakes(registry), self._acks.inc)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; then acknowledge what has arrived, and disconnect. Raises `Misconfigured`."""
        host, port = self._settings.relay_http_host, self._settings.relay_http_port
        async with health.serving(host, port, "FLEET_RELAY_HTTP", self._registry, self._not_ready):
            working = [asyncio.create_task(work) for work in (self._publisher.run(), self._receive())]
            working.append(asyncio.create_task(self._acknowledge()))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._mqtt.stop_reading()
                await self._drained()
                await self._mqtt.close()
                for work in working:
                    if work.done():
                        work.result()
            finally:
                for task in (*working, stopping):
                    task.cancel()
                await asyncio.gather(*working, stopping, return_exceptions=True)

    async def _receive(self) -> None:
        """Receive from the broker once there is a stream."""
        await self._publisher.opened()
        await self._mqtt.run()

    async def _acknowledge(self) -> None:
        """Acknowledge what the stream has acknowledged."""
        while True:
            self._mqtt.acknowledge()
            await asyncio.sleep(_ACKNOWLEDGE_EVERY_S)

    async def _drained(self) -> None:
        """Wait a moment until all is acknowledged."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._mqtt.waiting:  # noqa: ASYNC110  # PUBACKs are sent by `_acknowledge`, at the same interval
                    await asyncio.sleep(_ACKNOWLEDGE_EVERY_S)

    def _not_ready(self) -> str | None:
        if (reason := self._publisher.not_ready) is not None:
            return reason
        return None if self._mqtt.connected else "not connected to the broker"
