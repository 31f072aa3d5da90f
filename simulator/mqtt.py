"""An MQTT 5 lane: QoS 1 with a window, receipts for a share of the messages, reconnection without loss.

Messages that are not acknowledged when a connection is lost are published again on the next one, in the same order and
before new ones (MQTT-4.4.0-1), so the broker receives each device's messages in the order in which they were offered.
"""

import asyncio
import json
import struct
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.backoff import Backoff
from bridge.contract import KIND_OF
from bridge.mqtt.codec import (
    ConnAckReasonCode,
    ConnectPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    QoS,
    TopicFilter,
    refused,
)
from bridge.mqtt.session import Event, Messages, Session
from bridge.mqtt.transport import ConnectionLost, ConnectionRefused, Transport
from bridge.mqtt.url import Broker
from simulator.fleet import Device
from simulator.lane import Waiting
from simulator.ledger import IN_ARRAY, PUBACK, RECEIPT, RECEIPT_ASKED, REFUSED, LedgerWriter
from simulator.message import Message
from simulator.tally import Tally

CORRELATION = struct.Struct("<8sII")
"""The run, the first item's number, how many items."""
_FILTERS_PER_SUBSCRIBE = 100
_MOST_IN_FLIGHT = 1_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_ANSWER_TIMEOUT_S = 20.0
_KEEP_ALIVE_S = 30
_SESSION_EXPIRY_S = 600
_WRONG_ACCOUNT = (
    ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    ConnAckReasonCode.NOT_AUTHORIZED,
    ConnAckReasonCode.BANNED,
)


class Refused(Exception):
    """The broker refuses the account; a retry cannot succeed."""


class _InFlight(NamedTuple):
    sent_at: float
    first: int
    items: int


class MqttLane:
    """Publishes the messages of its devices, by their numbers, over one connection at a time."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        devices: Mapping[int, Device],
        ledger: LedgerWriter,
        tally: Tally,
        run_id: bytes,
        receipt_share: float,
        waiting: Waiting,
    ) -> None:
        self._broker = broker
        self._session = Session(
            ConnectPacket(
                client_id,
                username=broker.username,
                password=broker.password,
                session_expiry_interval=_SESSION_EXPIRY_S,
                keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._topics = {number: KIND_OF[device.kind].topic(device.id) for number, device in devices.items()}
        self._ledger, self._tally, self._run_id = ledger, tally, run_id
        self._contact = tally.contact(f"broker {broker.host}:{broker.port}")
        self._receipt_share = receipt_share
        self._owed_receipts = 0.0
        self._waiting = waiting
        self._in_flight: dict[int, _InFlight] = {}
        self._awaited: dict[int, float] = {}
        self._transport: Transport | None = None
        self._ready = False
        self._pump_due = False

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._in_flight

    @property
    def awaits_receipts(self) -> bool:
        return bool(self._awaited)

    def offer(self, message: Message) -> None:
        self._waiting.put(message)
        self._pump_soon()

    @property
    def is_full(self) -> bool:
        return self._waiting.is_full

    async def room(self) -> None:
        await self._waiting.room()

    async def run(self) -> None:
        """Connect, and reconnect with increasing, randomized pauses, until cancelled. Raises `Refused`."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        try:
            while True:
                try:
                    transport = await self._connect()
                    self._contact.made()
                    backoff.reset()
                    await transport.closed
                except (OSError, TimeoutError, ConnectionLost) as error:
                    self._contact.failed(error)
                self._ready = False
                self._tally.reconnects += 1
                await asyncio.sleep(backoff.next())
        finally:
            if self._transport is not None:  # nothing is outstanding, so the session can end
                self._session.disconnect(session_expiry_s=0)
                self._transport.close()

    async def _connect(self) -> Transport:
        self._transport = transport = Transport(self._session, self._received, gathers=False)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await transport.open(self._broker, _ANSWER_TIMEOUT_S)
                await self._subscribe(transport)
        except ConnectionRefused as error:
            if error.code in _WRONG_ACCOUNT:
                raise Refused(f"the broker refuses this account: {error.code.name}") from None
            raise
        except BaseException:
            transport.abort("could not open the session")
            raise
        self._session.resend()  # before new messages
        self._ready = True
        self._pump_soon()
        return transport

    async def _subscribe(self, transport: Transport) -> None:
        """Subscribe to the receipts of each device by name, so that the lane receives no receipts of other devices."""
        own = [_receipt_topic(topic) for topic in self._topics.values()] if self._receipt_share else []
        for start in range(0, len(own), _FILTERS_PER_SUBSCRIBE):
            topics = own[start : start + _FILTERS_PER_SUBSCRIBE]
            filters = [TopicFilter(topic, max_qos=QoS.AT_LEAST_ONCE) for topic in topics]
            if refused((await transport.subscribe(filters)).reason_codes):
                raise Refused(f"the broker refuses a subscription like {topics[0]}")

    # -- out

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Send as many messages as the window allows: first write all of them to the ledger, then to the socket."""
        self._pump_due = False
        transport = self._transport
        if self._ready and transport is not None and transport.writable:
            now, window = time.monotonic(), min(self._session.send_maximum, _MOST_IN_FLIGHT)
            while self._waiting and len(self._in_flight) < window:
                self._publish(self._waiting.take(), now)
        self._ledger.flush()
        if transport is not None:
            transport.flush()

    def _publish(self, message: Message, now: float) -> None:
        topic, count = self._topics[message.device], len(message.items)
        self._owed_receipts += self._receipt_share
        asks = self._owed_receipts >= 1
        flags = (IN_ARRAY if message.is_array else 0) | (RECEIPT_ASKED if asks else 0)
        first = self._ledger.sent(message.device, message.items, flags)
        if asks:
            self._owed_receipts -= 1
            self._awaited[first] = now
        packet_id = self._session.publish(
            topic,
            message.payload,
            qos=QoS.AT_LEAST_ONCE,
            response_topic=_receipt_topic(topic) if asks else None,
            correlation_data=CORRELATION.pack(self._run_id, first, count) if asks else None,
        )
        assert packet_id is not None
        self._in_flight[packet_id] = _InFlight(now, first, count)
        self._tally.sent += count

    # -- in

    def _received(self, events: Sequence[Event]) -> None:
        now = time.monotonic()
        for event in events:
            if isinstance(event, PubAckPacket):
                self._acknowledged(event, now)
            elif isinstance(event, Messages):
                for packet in event.packets:
                    self._receipt(packet, now)
                self._session.settle(event.first, len(event.packets))
        self._pump_soon()

    def _acknowledged(self, packet: PubAckPacket, now: float) -> None:
        flight = self._in_flight.pop(packet.packet_id, None)
        if flight is None:
            return
        if packet.reason_code == PubAckReasonCode.SUCCESS:
            self._ledger.acknowledged(PUBACK, flight.first, flight.items)
            self._tally.pubacks += flight.items
            self._tally.puback_latency.add(now - flight.sent_at, flight.items)
        else:  # the broker did not queue it, or there was no subscriber
            self._ledger.acknowledged(REFUSED, flight.first, flight.items)
            self._tally.refused += flight.items

    def _receipt(self, packet: PublishPacket, now: float) -> None:
        if packet.correlation_data is None or len(packet.correlation_data) != CORRELATION.size:
            return
        run_id, first, count = CORRELATION.unpack(packet.correlation_data)
        if run_id != self._run_id:
            return
        receipt = json.loads(packet.payload)
        self._tally.receipts += count
        self._tally.rejected += len(receipt["rejected"])
        self._tally.warnings += self._ledger.told(RECEIPT, first, count, receipt)
        if (asked_at := self._awaited.pop(first, None)) is not None:
            self._tally.receipt_latency.add(now - asked_at, count)


def _receipt_topic(topic: str) -> str:
    """The topic of the receipts for messages to `topic`."""
    return topic.removesuffix("telemetry") + "receipt"
