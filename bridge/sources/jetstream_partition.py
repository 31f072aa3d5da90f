"""One partition of a NATS JetStream stream; its durable consumer outlives connections, processes and nodes.

The stream keeps what was published until the consumer has acknowledged it, and a message is acknowledged only after its
commit. `jetstream_reading` reads on one connection; here a connection follows the other.
"""

import asyncio
import contextlib
import ssl

import structlog

from bridge.backoff import Backoff
from bridge.settings.jetstream import JetStreamSettings
from bridge.sources.jetstream_metrics import JetStreamMetrics
from bridge.sources.jetstream_reading import Reading
from bridge.sources.port import Intake
from bridge.streams.jetstream_client import ApiError, Client, NatsUnavailable
from bridge.streams.jetstream_partitions import share_of
from bridge.streams.jetstream_setup import rewind, set_up
from bridge.url import split_nats

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Partition:
    """Keeps one connection to the cluster, and reads from the partition's consumer on it."""

    def __init__(self, number: int, settings: JetStreamSettings, intake: Intake, metrics: JetStreamMetrics) -> None:
        self._settings = settings
        self._share = share_of(settings, number)
        self._intake = intake
        self._metrics = metrics
        self._servers = split_nats(settings.nats_url)
        self._tls = None
        if self._servers[0].startswith("tls:"):
            self._tls = ssl.create_default_context(cafile=settings.nats_ca_file)
        self._client: Client | None = None
        self._reading: Reading | None = None
        self._stopping = self._is_connected = False

    @property
    def not_ready(self) -> str | None:
        """Why no messages of this partition can be received, or None."""
        is_reading = self._reading is not None and self._reading.failed is None
        return None if is_reading else "not reading from the stream"

    async def run(self) -> None:
        """Connect, and reconnect with back-off and jitter, until cancelled. Raises `Misconfigured`."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self._stopping:
            event = "NATS unavailable"
            try:
                reading = await self._connect()
                backoff.reset()
                event = "reading from the stream ended"
                reason = await reading.run()
            except (NatsUnavailable, ApiError) as error:
                reason = str(error)
            finally:
                await self._disconnect(reason="reading ended")
            if not self._stopping:
                pause_s = backoff.next()
                log.warning(event, reason=reason, again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)

    async def _connect(self) -> Reading:
        # A connection that failed has offered some messages: while the database is unavailable, an unstable link would
        # otherwise fill the memory.
        await self._intake.room()
        settings = self._settings
        self._client = client = await Client.connect(self._servers, f"fleet-bridge {settings.bridge_name}", self._tls)
        if await set_up(client, settings):
            self._metrics.consumer_created.inc()
            log.warning("new consumer: messages published before were not kept for this bridge")
        await rewind(client, settings.nats_stream, self._share.consumer)
        self._reading = reading = Reading(client, settings, self._share, self._intake, self._metrics)
        self._metrics.connects.inc()
        self._count(is_connected=True)
        log.info("reading", server=client.server, stream=settings.nats_stream, consumer=self._share.consumer)
        return reading

    async def _disconnect(self, reason: str) -> None:
        """Close the connection at once; what is settled later is not acknowledged."""
        self._count(is_connected=False)
        if self._reading is not None:
            self._reading.fail(reason)
        if self._client is not None:
            await self._client.abort()

    def _count(self, is_connected: bool) -> None:
        self._metrics.connected.inc(is_connected - self._is_connected)
        self._is_connected = is_connected

    def resume(self) -> None:
        """Request messages again: there is room for them."""
        if self._reading is not None:
            self._reading.wake()

    def stop_reading(self) -> None:
        """Request nothing more. Earlier messages are still acknowledged after their commit."""
        self._stopping = True
        if self._reading is not None:
            self._reading.stop()

    async def close(self) -> None:
        """Send the last acknowledgements, and close; the stream keeps the other messages."""
        if self._client is not None and self._reading is not None:
            with contextlib.suppress(NatsUnavailable):
                await self._reading.finish()
            await self._client.close()
        self._count(is_connected=False)

    def abort(self, reason: str) -> None:
        """Close the connection: another bridge has taken over."""
        self._stopping = True
        self._count(is_connected=False)
        if self._reading is not None:
            self._reading.fail(reason)
