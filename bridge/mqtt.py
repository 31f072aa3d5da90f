"""The durable MQTT 5 session: it outlives connections and processes.

Fixed client id, no clean start and a long expiry make the broker keep what arrives while we are away. With
`mqtt_connection.py` this is all in the house that knows MQTT.
"""

import asyncio
import random
import ssl
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import mqtt5
import structlog

from bridge.connect_rate import ConnectRate
from bridge.delivery import Delivery
from bridge.ingest import Ingest
from bridge.metrics import SessionMetrics
from bridge.mqtt_connection import Connection
from bridge.settings import Settings

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_ANSWER_TIMEOUT_S = 10.0
_DEFAULT_PORT = {"mqtt": 1883, "mqtts": 8883}


class ConnectionLost(Exception):
    """This connection is over; the session goes on with the next one."""


class Session:
    """Keeps one connection to the broker and hands what comes to the ingest."""

    def __init__(self, settings: Settings, ingest: Ingest, metrics: SessionMetrics) -> None:
        self._settings = settings
        self._ingest = ingest
        self._metrics = metrics
        self._connect_rate = ConnectRate()
        self._address = _address(settings)
        self._connection: Connection | None = None
        self._stopping = False
        ingest.on_room = self._resume

    @property
    def connected(self) -> bool:
        """Subscribed and not cut off since."""
        connection = self._connection
        return connection is not None and connection.subscribed.done() and not connection.closed.done()

    async def run(self) -> None:
        """Connect, and connect again with growing, jittered pauses, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping:
            try:
                await self._connect()
                pause_s = _FIRST_PAUSE_S
                reason = await self._until_closed()
            except (ConnectionLost, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if not self._stopping:
                log.warning("broker connection lost", reason=reason, again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _connect(self) -> None:
        # Each connection reads a little before it notices that there is no room: while the store is away, a link
        # that breaks again and again would fill the memory.
        await self._ingest.room()
        make = partial(Connection, self._settings, self._metrics, self._take)
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(make, **self._address)
        self._connection = connection
        try:
            self._greet(await _answer(connection, connection.connack, _ANSWER_TIMEOUT_S))
            connection.subscribe()
            # No time limit: the answer comes behind a backlog that we may be too full to read. The keep-alive
            # notices a broker that is gone.
            await _answer(connection, connection.subscribed, None)
        except BaseException:
            connection.abort("could not open the session")
            raise
        connection.publish_status(b"online")
        self._metrics.connected.set(1)
        log.info("subscribed", broker=self._address["host"], port=self._address["port"])

    def _greet(self, connack: mqtt5.ConnAckPacket) -> None:
        if connack.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
            raise ConnectionLost(f"the broker refused the connection: {connack.reason_code.name}")
        self._count_connect()
        assert self._connection is not None
        self._connection.keep_alive_s = connack.server_keep_alive or self._settings.keep_alive_s
        self._connection.packet_limit = connack.max_packet_size or self._connection.packet_limit
        if not connack.session_present:
            self._metrics.session_lost.inc()
            log.warning("the broker has no session for this bridge: nothing was queued while it was away")

    def _count_connect(self) -> None:
        self._metrics.connects.inc()
        if self._connect_rate.alarms(time.monotonic()):
            self._metrics.connect_alarms.inc()
            log.error("many connections within a minute: another client may use this bridge's client id")

    async def _until_closed(self) -> str:
        """Watch the connection to its end, and cut it when messages wait that no commit moves."""
        assert self._connection is not None
        closed = self._connection.closed
        while not closed.done():
            await asyncio.wait({closed}, timeout=self._settings.stall_s / 4)
            if self._ingest.stalled_s > self._settings.stall_s and not self._ingest.retrying:
                self._connection.abort(f"no commit for {self._ingest.stalled_s:.0f} s")
        self._metrics.connected.set(0)
        return closed.result()

    def _take(self, delivery: Delivery) -> bool:
        self._ingest.offer(delivery)
        return not self._ingest.full

    def _resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def stop_reading(self) -> None:
        """Take nothing more. What was taken is still acknowledged when it is committed."""
        self._stopping = True
        if self._connection is not None:
            self._connection.stop_reading()

    async def disconnect(self) -> None:
        """Send the last acks and say goodbye; the broker keeps the session."""
        if self._connection is not None and not self._connection.closed.done():
            self._connection.disconnect()
            await asyncio.wait({self._connection.closed}, timeout=_ANSWER_TIMEOUT_S)
            self._connection.abort("the broker does not close the connection")

    def abort(self, reason: str) -> None:
        """Cut the connection: somebody else serves this session now."""
        self._stopping = True
        if self._connection is not None:
            self._connection.abort(reason)


async def _answer(connection: Connection, answer: "asyncio.Future[Any]", timeout_s: float | None) -> Any:
    """The broker's answer. Raises `ConnectionLost` when the connection ends, or the time is over, before it."""
    await asyncio.wait({answer, connection.closed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        return answer.result()
    raise ConnectionLost(connection.closed.result() if connection.closed.done() else "no answer from the broker")


def _address(settings: Settings) -> dict[str, Any]:
    """Host, port and TLS of the broker, as `create_connection` takes them."""
    url = urlsplit(settings.bridge_mqtt_url)
    address: dict[str, Any] = {"host": url.hostname, "port": url.port or _DEFAULT_PORT[url.scheme]}
    if url.scheme == "mqtts":
        address["ssl"] = ssl.create_default_context(cafile=settings.mqtt_ca_file)
    return address
