"""The bridge's durable MQTT session: it outlives connections and processes.

A fixed client id, no clean start and a long expiry make the broker queue messages while the bridge is disconnected. A
message is acknowledged only after its commit.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence
from functools import partial
from typing import Literal

import mqtt5
import structlog
from prometheus_client import CollectorRegistry

from bridge.backoff import Backoff
from bridge.connect_rate import ConnectRate
from bridge.contract import KINDS
from bridge.delivery import Item, Outcome, Receipt, Settlement, delivery
from bridge.errors import ClocksDiffer, Rejected, StoreUnavailable
from bridge.formats import FORMATS, decode_message
from bridge.formats.port import AcceptedTimes
from bridge.mqtt.codec import refused
from bridge.mqtt.session import Ended, Event, Messages, PacketTooLarge, Session, WindowFull
from bridge.mqtt.transport import ConnectionLost, Transport
from bridge.mqtt.url import Broker, broker_of
from bridge.settings.mqtt import MqttSettings
from bridge.sources.mqtt_arrival import LIGHT_BYTES, LIGHT_SEPARATORS, Arrival, Message, Request, is_light
from bridge.sources.mqtt_metrics import MqttMetrics
from bridge.sources.mqtt_topics import MISTAKEN_FILTERS
from bridge.sources.notices import Notices
from bridge.sources.port import Intake, Open, SourceKind
from bridge.sources.shares import Shares
from bridge.sources.turns import Turns

log = structlog.get_logger(__name__)

_MOST_ITEMS = 1_000  # approximate maximum of one delivery: much smaller than a batch, much larger than a message
_MOST_FROM_TURNS = 12_000  # readings of them that are not written yet: what is light waits for these at most
_REJECT_WEIGHT = 8  # what a reject takes to be written, in readings
_MOST_WAITING_BYTES = 128 << 20  # of messages that wait for their turn, at which nothing more is read
_MOST_WAITING_BYTES_OF_A_DEVICE = 16 << 20  # of those, beyond which its messages with QoS 0 are discarded
_SHARE_PER_S, _SHARE_AT_ONCE = 100.0, 5_000  # messages of a device with QoS 0: at once those of three days
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_ANSWER_TIMEOUT_S = 10.0
_BROKER_DROPPED = "$SYS/broker/publish/messages/dropped"
_BROKER_SUBSCRIPTIONS = "$SYS/broker/subscriptions/count"
_BROKER_SHARED = "$SYS/broker/shared_subscriptions/count"
_BROKER_COUNTS = (_BROKER_DROPPED, _BROKER_SUBSCRIPTIONS, _BROKER_SHARED)
_MOST_NAMED = 1_000  # devices that are named in the log for a reason
_LONGEST_REST_S = 0.05
_TURN_S = 0.001  # of light messages, which wait for the turn of a device that is rejecting
_MOST_LIGHT_REJECTS = 1  # of one message; rejects take longer to write than readings
_REJECTING_S = 60.0


def _telemetry(topic: str) -> mqtt5.TopicFilter:
    once = mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
    return mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_handling=once)


TELEMETRY = [
    *(_telemetry(kind.topic_filter) for kind in KINDS),
    *(_telemetry(topic) for format_ in FORMATS for topic in format_.topics),
]
READINGS = [*TELEMETRY, *map(_telemetry, MISTAKEN_FILTERS)]
_FILTERS = [
    *READINGS,
    *(mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS.AT_MOST_ONCE) for topic in _BROKER_COUNTS),
]


def _greeting(settings: MqttSettings, broker: Broker) -> mqtt5.ConnectPacket:
    """The CONNECT for the durable session, with a receive window for messages that wait for their commit."""
    return mqtt5.ConnectPacket(
        settings.client_id,
        username=broker.username,
        password=broker.password,
        clean_start=False,
        session_expiry_interval=settings.mqtt_session_expiry_s,
        receive_max=settings.mqtt_receive_maximum,
        keep_alive=settings.mqtt_keep_alive_s,
        will=mqtt5.Will(settings.status_topic, payload=b"offline", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
    )


class MqttSource:
    """Keeps one connection to the broker, offers received messages to the ingest, and acknowledges settled ones."""

    def __init__(self, settings: MqttSettings, intake: Intake, metrics: MqttMetrics) -> None:
        self._settings = settings
        self._intake = intake
        self._metrics = metrics
        self._broker = broker_of(
            settings.bridge_mqtt_url, lambda: ssl.create_default_context(cafile=settings.mqtt_ca_file)
        )
        self._session = Session(_greeting(settings, self._broker))
        self._window = settings.accepted_window
        self._connect_rate = ConnectRate()
        self._transport: Transport | None = None
        self._turns: Turns[tuple[int, Message]] = Turns()
        self._turn: asyncio.Handle | None = None
        self._rest_s = 0.0
        self._from_turns = 0
        self._shares = Shares(_SHARE_PER_S, _SHARE_AT_ONCE)
        self._notices = Notices()
        self._rejecting: dict[str, float] = {}
        """Until when the small arrays of a device are not light, monotonic seconds."""
        self._broker_counts = dict.fromkeys(_BROKER_COUNTS, 0)
        self._expiring: set[str] = set()
        self._exceeding: set[str] = set()
        self._subscribed = self._stopping = False
        intake.on_room = self._resume

    @property
    def not_ready(self) -> str | None:
        """See `port.Source`."""
        is_open = self._transport is not None and not self._transport.closed.done()
        return None if self._subscribed and is_open else "not connected to the broker"

    # -- connections

    async def run(self) -> None:
        """Connect, and reconnect with back-off and jitter, until cancelled."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self._stopping:
            event = "broker unavailable"
            try:
                transport = await self._connect()
                backoff.reset()
                event = "broker connection lost"
                reason = await self._until_closed(transport)
            except (ConnectionLost, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            self._subscribed = False
            self._metrics.connected.set(0)
            if not self._stopping:
                pause_s = backoff.next()
                log.warning(event, reason=reason, again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)

    async def _connect(self) -> Transport:
        # Each connection reads some messages before the back-pressure stops it: while the database is unavailable, an
        # unstable link would otherwise fill the memory.
        await self._intake.room()
        self._turns.clear()  # they are redelivered
        self._transport = transport = Transport(self._session, self._received, gathers=True)
        await transport.open(self._broker, _ANSWER_TIMEOUT_S)
        self._count_connect()
        try:
            await self._subscribe(transport)
        except BaseException:
            transport.abort("session not opened")
            raise
        self._subscribed = True
        self._metrics.connected.set(1)
        log.info("subscribed", broker=self._broker.host, port=self._broker.port, session=self._session_state)
        return transport

    def _count_connect(self) -> None:
        self._metrics.connects.inc()
        if self._connect_rate.alarms(time.monotonic()):
            self._metrics.connect_alarms.inc()
            log.error("connection rate high: another client may use this client id")
        if self._session_state == "new":
            self._metrics.session_lost.inc()
            log.warning("new broker session: messages published before were not queued for this bridge")

    @property
    def _session_state(self) -> Literal["new", "resumed"]:
        """Whether the broker had a session, with its queue, when this connection was made."""
        connack = self._session.connack
        return "resumed" if connack is not None and connack.session_present else "new"

    async def _subscribe(self, transport: Transport) -> None:
        """Subscribe on each connection: an existing session may lack a filter of this version.

        There is no timeout: the broker sends the SUBACK after a backlog, which back-pressure may delay. The keep-alive
        detects a broker that does not respond.
        """
        suback = await transport.subscribe(_FILTERS)
        if names := refused(suback.reason_codes[: len(TELEMETRY)]):
            raise ConnectionLost(f"the broker refused the subscription: {', '.join(names)}")
        if not self._session.resend():  # otherwise the same status, left unacknowledged, was sent again
            self._publish_status(b"online")
        transport.flush()

    async def _until_closed(self, transport: Transport) -> str:
        """Wait until the connection is closed; close it when messages wait without a commit for too long."""
        while not transport.closed.done():
            await asyncio.wait({transport.closed}, timeout=self._settings.stall_timeout_s / 4)
            if self._intake.stalled_s > self._settings.stall_timeout_s and not self._intake.retrying:
                transport.abort(f"no commit for {self._intake.stalled_s:.0f} s")
        return transport.closed.result()

    def _publish_status(self, status: bytes) -> None:
        """Publish the bridge's status as a retained message."""
        with contextlib.suppress(WindowFull):  # with a window of one message, while an earlier one is not acknowledged
            self._session.publish(self._settings.status_topic, status, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)

    # -- messages

    def _received(self, events: Sequence[Event]) -> None:
        if not events:
            self._arrange_turn()  # writing may continue
        for event in events:
            if isinstance(event, Messages):
                try:
                    times = self._window.at(self._intake.now())
                except ClocksDiffer as error:
                    self._refuse(str(error))
                    return
                self._messages_received(event, times)
            elif isinstance(event, Ended) and event.code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
                self._metrics.taken_over.inc()
                log.error("session taken over by another client")

    def _refuse(self, reason: str) -> None:
        """Close the connection without acknowledging what it delivered, so that the broker delivers it again."""
        assert self._transport is not None
        self._transport.abort(reason)

    def _messages_received(self, messages: Messages, times: AcceptedTimes) -> None:
        if self._stopping:
            return  # never acknowledged, so the broker redelivers them
        arrival = Arrival(messages.first)
        now, right, has_qos_0 = time.monotonic(), self._metrics.mistakes.right, messages.has_qos_0
        for packet in messages.packets:
            sent_to, payload = packet.topic, packet.payload  # the codec creates a new object on each access
            topic = right.get(sent_to)
            if topic is None:
                if sent_to[:1] == "$":
                    arrival = self._note_count(self._hand_over(arrival), sent_to, payload)
                    continue
                topic = self._metrics.mistakes.corrected(sent_to)
            if packet.message_expiry_interval is not None:
                self._note_expiring(topic)
            if has_qos_0 and packet.packet_id is None and not self._has_share(topic, now):
                self._discard(arrival, topic)
                continue
            content_type = packet.content_type
            is_small_object = content_type is None and payload[:1] == b"{" and len(payload) <= LIGHT_BYTES
            if not is_small_object and not self._is_light(topic, payload, now):
                arrival = self._let_wait(self._hand_over(arrival), Message.of(packet, topic, payload))
                continue
            items = decode_message(topic, payload, times, content_type)
            if len(items) > _MOST_LIGHT_REJECTS:
                self._note_rejects(topic, items, now)
            arrival.add(packet, topic, len(payload), items)
            if len(arrival.items) >= _MOST_ITEMS:
                arrival = self._hand_over(arrival)
        self._hand_over(arrival)

    def _hand_over(self, arrival: Arrival) -> Arrival:
        """Offer the messages so far as a delivery; return the arrival that follows."""
        if arrival.items:
            self._metrics.messages.inc(arrival.messages)
            self._intake.offer(delivery(arrival.items, partial(self._settle, arrival), arrival.size_bytes))
            self._pause_if_full()
        elif arrival.messages:  # all of them are discarded
            self._metrics.messages.inc(arrival.messages)
            self._session.settle(arrival.first, arrival.messages)
        return Arrival(arrival.first + arrival.messages)

    def _note_rejects(self, topic: str, items: Sequence[Item], now: float) -> None:
        """Let the device's messages wait for their turn for some time if many items of this one are rejected."""
        if sum(isinstance(item, Rejected) for item in items) > _MOST_LIGHT_REJECTS:
            if len(self._rejecting) >= _MOST_NAMED:
                self._rejecting.clear()
            self._rejecting[topic] = now + _REJECTING_S

    def _is_light(self, topic: str, payload: bytes, now: float) -> bool:
        """Whether a message that is no small object is decoded at once: of a device with rejects only single items."""
        return is_light(payload, 0 if self._rejecting.get(topic, now) > now else LIGHT_SEPARATORS)

    def _has_share(self, topic: str, now: float) -> bool:
        """Whether a message with QoS 0 of this device is taken."""
        return self._turns.bytes_of(topic) < _MOST_WAITING_BYTES_OF_A_DEVICE and self._shares.take(topic, now)

    def _discard(self, arrival: Arrival, topic: str) -> None:
        """Add a message with QoS 0 that is not decoded, and name its device once."""
        arrival.skip()
        self._metrics.discarded.inc()
        if topic not in self._exceeding and len(self._exceeding) < _MOST_NAMED:
            self._exceeding.add(topic)
            log.error("messages with QoS 0 discarded: a device sends more than its share", topic=topic)

    def _let_wait(self, arrival: Arrival, message: Message) -> Arrival:
        """Let the first message of `arrival` wait for its device's turn; return the arrival that follows."""
        self._turns.add(message.topic, (arrival.first, message), message.size_bytes)
        self._pause_if_full()
        self._arrange_turn()
        return Arrival(arrival.first + 1)

    def _arrange_turn(self) -> None:
        """Decode waiting messages soon, but not before the input and output that are due.

        Only one batch waits for the writer then, and of such messages less than a batch: readings that arrive meanwhile
        follow it, and a thousand rejects take long to write. This is called again
        whenever something is settled or written. While more is to be read, half of the time is for reading: behind the
        messages of one device are those of others.
        """
        if self._turn is None and self._may_decode_waiting:
            rest_s, self._rest_s = self._rest_s, 0.0
            self._turn = asyncio.get_running_loop().call_later(rest_s, self._take_turn)

    @property
    def _may_decode_waiting(self) -> bool:
        writable = self._transport is not None and self._transport.writable
        is_free = not self._intake.busy and self._from_turns < _MOST_FROM_TURNS
        return bool(self._turns) and writable and is_free and not self._stopping

    def _take_turn(self) -> None:
        """Decode a message, and further ones while that takes no longer than a moment, each of the next device."""
        self._turn = None
        if not self._may_decode_waiting:
            return  # called again when something is settled or written
        began = time.monotonic()
        try:
            times = self._window.at(self._intake.now())
        except ClocksDiffer as error:
            self._refuse(str(error))
            return
        while self._may_decode_waiting:
            number, message = self._turns.take()
            if not self._session.is_stale(number):  # otherwise the broker redelivers it
                self._decode_waiting(Arrival(number), message, times)
            if time.monotonic() - began > _TURN_S:
                break
        self._resume()
        if self._transport is not None and self._transport.is_behind():
            self._rest_s = min(_LONGEST_REST_S, time.monotonic() - began)
        self._arrange_turn()

    def _decode_waiting(self, arrival: Arrival, message: Message, times: AcceptedTimes) -> None:
        items = decode_message(message.topic, message.payload, times, message.content_type)
        rejects = sum(isinstance(item, Rejected) for item in items)
        arrival.add_message(message, items, len(items) + rejects * (_REJECT_WEIGHT - 1))
        self._from_turns += arrival.turn_weight
        self._hand_over(arrival)

    def _note_expiring(self, topic: str) -> None:
        """Count a message that the broker would have discarded after some time, and name its device once."""
        self._metrics.expiring.inc()
        if topic not in self._expiring and len(self._expiring) < _MOST_NAMED:
            self._expiring.add(topic)
            log.warning("message with an expiry interval: the broker may discard what it has acknowledged", topic=topic)

    def _note_count(self, arrival: Arrival, topic: str, payload: bytes) -> Arrival:
        """Settle the first message of `arrival`, a count of the broker; return the arrival that follows."""
        self._session.settle(arrival.first, 1)
        with contextlib.suppress(ValueError):
            count = int(payload)
            rises = count > self._broker_counts[topic]
            self._broker_counts[topic] = count
            if topic == _BROKER_DROPPED:
                self._metrics.broker_dropped.set(count)
            elif topic == _BROKER_SHARED:
                self._metrics.broker_shared.set(count)
            else:
                self._metrics.broker_subscriptions.set(count)
            if rises and topic == _BROKER_DROPPED:
                log.error("broker dropped messages", dropped=count)
            elif rises and topic == _BROKER_SHARED:
                log.error("shared subscriptions: a device slows the broker down", subscriptions=count)
        return Arrival(arrival.first + 1)

    def _settle(self, arrival: Arrival, settlement: Settlement) -> None:
        """After the commit, send PUBACKs and requested receipts, only on the connection that received the messages."""
        assert self._transport is not None
        self._from_turns -= arrival.turn_weight
        stale = self._session.is_stale(arrival.first)
        if isinstance(settlement, StoreUnavailable):
            if not stale:
                self._refuse("not stored")
        elif stale:
            self._metrics.stale_acks.inc(arrival.messages)
        else:
            self._metrics.acks.inc(self._session.settle(arrival.first, arrival.messages))
            # After the PUBACKs: a broker that disconnects because of a receipt does not redeliver the messages.
            for request, receipt in arrival.receipts(settlement):
                self._publish_receipt(request, receipt)
            self._publish_notices(arrival, settlement)
            self._transport.flush_soon()
        self._arrange_turn()

    def _publish_receipt(self, request: Request, receipt: Receipt) -> None:
        """Publish a receipt, without the details of rejections and warnings if it is too large with them."""
        try:
            try:
                self._send_receipt(request, receipt.encode())
            except PacketTooLarge:
                self._send_receipt(request, receipt.brief().encode())
        except PacketTooLarge as error:
            log.error("receipt exceeds the broker's maximum packet size", topic=request.topic, size=str(error))

    def _send_receipt(self, request: Request, text: bytes) -> None:
        self._session.publish(request.topic, text, correlation_data=request.correlation)
        self._metrics.receipts.inc()

    def _publish_notices(self, arrival: Arrival, outcomes: Sequence[Outcome]) -> None:
        """Tell devices what was rejected; not while the broker is behind with reading."""
        assert self._transport is not None
        answered = (range(request.start, request.stop) for request in arrival.requests)
        for topic, notice in self._notices.of(outcomes, answered, time.monotonic()):
            if self._transport.writable:
                with contextlib.suppress(PacketTooLarge):
                    self._session.publish(topic, notice)
                    self._metrics.notices.inc()

    # -- flow and end

    @property
    def _full(self) -> bool:
        return self._intake.full or self._turns.size_bytes >= _MOST_WAITING_BYTES

    def _pause_if_full(self) -> None:
        if self._full and self._transport is not None:
            self._transport.pause()

    def _resume(self) -> None:
        if self._transport is not None and not self._stopping and not self._full:
            self._transport.resume()

    def stop_reading(self) -> None:
        """Accept no further messages. Accepted ones are still acknowledged after their commit."""
        self._stopping = True
        if self._transport is not None:
            self._transport.pause()

    async def close(self) -> None:
        """Send the last PUBACKs and DISCONNECT: the will is not published, and the broker keeps the session.

        The broker closes the connection after reading them. Closing it here, with unread data in the socket, would
        reset it, and the broker might not read the last PUBACKs.
        """
        if self._transport is not None and not self._transport.closed.done():
            self._publish_status(b"offline")
            self._session.disconnect()
            self._transport.flush()
            self._transport.resume()
            await asyncio.wait({self._transport.closed}, timeout=_ANSWER_TIMEOUT_S)
            self._transport.abort("the broker did not close the connection")
        self._metrics.connected.set(0)

    def abort(self, reason: str) -> None:
        """Close the connection: another bridge uses this session now."""
        self._stopping = True
        self._metrics.connected.set(0)
        if self._transport is not None:
            self._transport.abort(reason)


def _open(settings: MqttSettings, registry: CollectorRegistry) -> Open:
    metrics = MqttMetrics(registry)
    return lambda intake: MqttSource(settings, intake, metrics)


SOURCE = SourceKind(MqttSettings, _open)
