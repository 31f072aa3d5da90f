"""One network connection of the MQTT session: packets in, acknowledgements out.

A PUBACK is sent only when its message has been committed, in the order of receipt (MQTT-4.6.0-2), and only on the
connection that the message came on: packet ids begin anew with each connection, so a late ack on the next one
could release another message.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

import mqtt5
import structlog

from bridge import wire
from bridge.arrival import Arrival
from bridge.delivery import Delivery, Settlement, delivery
from bridge.errors import StoreUnavailable
from bridge.metrics import SessionMetrics
from bridge.mqtt_packets import BROKER_DROPPED, connect_packet, refused_filters, status_packet, subscribe_packet
from bridge.settings import Settings

log = structlog.get_logger(__name__)

_MOST_ITEMS = 1_000  # of one delivery, roughly: much smaller than a batch, much larger than a message
_GATHER_S = 0.002
_BUSY_BYTES, _GATHER_BUSY_S = 6_000, 0.010  # where 2 ms bring so much, each waking up costs more than the wait
_LARGEST_PACKET = 268_435_460  # five bytes of header and MQTT's largest remaining length
_OutPacket = (
    mqtt5.ConnectPacket | mqtt5.SubscribePacket | mqtt5.PublishPacket | mqtt5.PingReqPacket | mqtt5.DisconnectPacket
)


class Connection(asyncio.Protocol):
    """Takes PUBLISH packets as deliveries and acknowledges them when they are settled.

    `take` keeps a delivery and says whether there is room for more; without room the socket is not read.
    """

    def __init__(self, settings: Settings, metrics: SessionMetrics, take: Callable[[Delivery], bool]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._take = take
        self._window = settings.accepted_window
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answers: list[bytes] = []
        self._unsent_acks = 0
        self._paused = self._leaving = False
        self._last_heard = time.monotonic()
        self._pinger: asyncio.TimerHandle | None = None
        self._broker_dropped = 0
        self._arrival = Arrival()
        loop = asyncio.get_running_loop()
        self.keep_alive_s = settings.keep_alive_s
        self.packet_limit = _LARGEST_PACKET
        self.connack: asyncio.Future[mqtt5.ConnAckPacket] = loop.create_future()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        """Done, with the reason, when the connection is over."""

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._send(connect_packet(self._settings))
        self._ping()

    def data_received(self, data: bytes) -> None:
        self._last_heard = time.monotonic()
        if self._leaving:
            return  # not acknowledged, so it comes again
        view = memoryview(self._buffer + data if self._buffer else data)
        offset, times = 0, self._window.at(datetime.now(UTC))
        while offset < len(view):
            try:
                packet, length = mqtt5.read(view[offset:])
            except IndexError:
                break  # the rest of this packet is still on its way
            except ValueError as error:
                self.abort(f"malformed packet: {error}")
                return
            offset += length
            self._received(packet, times)
        self._hand_over()
        self._buffer = bytes(view[offset:])
        self._gather(_GATHER_S if len(view) < _BUSY_BYTES else _GATHER_BUSY_S)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        self._transport = None
        self._finish(str(exc or "closed by the broker"))

    # -- packets

    def _received(self, packet: object, times: wire.AcceptedTimes) -> None:
        if type(packet) is mqtt5.PublishPacket:
            self._publish_received(packet, times)
        elif isinstance(packet, mqtt5.ConnAckPacket):
            if not self.connack.done():
                self.connack.set_result(packet)
        elif isinstance(packet, mqtt5.SubAckPacket):
            self._subscribe_answered(packet)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._disconnected(packet)

    def _disconnected(self, packet: mqtt5.DisconnectPacket) -> None:
        if packet.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
            self._metrics.taken_over.inc()
            log.error("another client has connected with this bridge's client id")
        self.abort(f"the broker disconnected: {packet.reason_code.name} {packet.reason_str or ''}".strip())

    def _publish_received(self, packet: mqtt5.PublishPacket, times: wire.AcceptedTimes) -> None:
        topic, payload = packet.topic, packet.payload  # the codec makes each anew whenever it is asked
        if topic == BROKER_DROPPED:
            self._note_dropped(payload)
            return
        arrival = self._arrival
        arrival.add(packet, topic, len(payload), wire.decode_message(topic, payload, times))
        if len(arrival.items) >= _MOST_ITEMS:
            self._hand_over()

    def _hand_over(self) -> None:
        """What has arrived so far becomes a delivery."""
        arrival = self._arrival
        if arrival.items:
            self._arrival = Arrival()
            self._metrics.messages.inc(arrival.messages)
            if not self._take(delivery(arrival.items, partial(self._settle, arrival), arrival.size_bytes)):
                self._pause()

    def _note_dropped(self, payload: bytes) -> None:
        with contextlib.suppress(ValueError):
            count = int(payload)
            if count > self._broker_dropped:
                log.error("the broker has dropped messages", dropped=count)
            self._broker_dropped = count
            self._metrics.broker_dropped.set(count)

    def _subscribe_answered(self, packet: mqtt5.SubAckPacket) -> None:
        refused = refused_filters(packet)
        if refused:
            self.abort(f"the broker refused the subscription: {', '.join(refused)}")
        elif not self.subscribed.done():
            self.subscribed.set_result(None)

    # -- out

    def subscribe(self) -> None:
        """Subscribe, always: a session that exists may still lack a filter that this version asks for."""
        self._send(subscribe_packet())

    def publish_status(self, status: bytes) -> None:
        """Retain the bridge's state for whoever watches it."""
        self._send(status_packet(self._settings, status))

    def _settle(self, arrival: Arrival, settlement: Settlement) -> None:
        """After the commit: PUBACKs, and the receipts that were asked for. Never before, never elsewhere."""
        if isinstance(settlement, StoreUnavailable):
            self.abort("not stored")  # no later ack may overtake these; the broker delivers again
            return
        if self._transport is None:
            self._metrics.stale_acks.inc(arrival.messages)
            return
        if not self._answers:
            asyncio.get_running_loop().call_soon(self.flush)
        self._answers += arrival.acks()
        self._unsent_acks += len(arrival.packet_ids)
        # After the acks: should the broker refuse a receipt, then at least not again after every redelivery.
        receipts = list(arrival.receipts(settlement, self.packet_limit))
        self._answers += receipts
        self._metrics.receipts.inc(len(receipts))

    def flush(self) -> None:
        """Write the gathered acks and receipts in one go."""
        answers, self._answers = self._answers, []
        acks, self._unsent_acks = self._unsent_acks, 0
        if self._transport is not None and answers:
            self._transport.write(b"".join(answers))
            self._metrics.acks.inc(acks)

    def _send(self, packet: _OutPacket) -> None:
        if self._transport is not None:
            self._transport.write(packet.write())

    def _ping(self) -> None:
        """Keep the connection alive, and notice when the other side is gone although nothing says so."""
        silent_s = time.monotonic() - self._last_heard
        if silent_s > self.keep_alive_s * 1.5 and not self._paused:
            self.abort(f"nothing heard for {silent_s:.0f} s")
            return
        self._send(mqtt5.PingReqPacket())
        self._pinger = asyncio.get_running_loop().call_later(self.keep_alive_s / 2, self._ping)

    # -- flow and end

    def _gather(self, wait_s: float) -> None:
        """Let a little gather before the next read: a broker writes each message by itself, and a read a message
        would cost more than the message."""
        if self._transport is not None and not self._paused:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(wait_s, self._gathered)

    def _gathered(self) -> None:
        if self._transport is not None and not self._paused:
            self._transport.resume_reading()

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """There is room again."""
        if not self._leaving:
            self._read_on()

    def _read_on(self) -> None:
        if self._transport is not None and self._paused:
            self._paused = False
            self._last_heard = time.monotonic()
            self._transport.resume_reading()

    def stop_reading(self) -> None:
        """Take nothing more; what was taken can still be acknowledged."""
        self._leaving = True
        self._pause()

    def disconnect(self) -> None:
        """Say goodbye: the will is not sent, the session stays. The broker closes when it has read that.

        Closing here, with something unread in the socket, would reset the connection, and the broker might never
        read the last acks.
        """
        self.flush()
        self.publish_status(b"offline")
        self._send(mqtt5.DisconnectPacket())
        self._read_on()

    def abort(self, reason: str) -> None:
        """Cut the connection at once; what is not acknowledged will be delivered again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
