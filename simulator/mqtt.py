"""An MQTT 5 lane: QoS 1 with a window, receipts for a share of the messages, reconnection without loss.

What is not acknowledged when a connection breaks is published again on the next one, in the same order and before
anything new (MQTT-4.4.0-1), so the broker has each device's messages in the order in which they were offered.
"""

import asyncio
import json
import random
import struct
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mqtt5

from bridge.contract import KIND_OF
from simulator.endpoints import Broker
from simulator.fleet import Device
from simulator.lane import Waiting
from simulator.ledger import IN_ARRAY, PUBACK, RECEIPT, RECEIPT_ASKED, REFUSED, LedgerWriter
from simulator.message import Message
from simulator.mqtt_connection import Connection, Refused, answer
from simulator.tally import Tally

CORRELATION = struct.Struct("<8sII")
"""The run, the first item's number, how many items."""
_FILTERS_PER_SUBSCRIBE = 100
_MOST_IN_FLIGHT = 1_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_ANSWER_TIMEOUT_S = 20.0
_DUP = 0x08
_GRANTED = (mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE, mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE)


class _InFlight(NamedTuple):
    sent_at: float
    first: int
    items: int
    packet: bytes


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
        self._broker, self._client_id = broker, client_id
        self._topics = {number: KIND_OF[device.kind].topic(device.id) for number, device in devices.items()}
        self._ledger, self._tally, self._run_id = ledger, tally, run_id
        self._receipt_share = receipt_share
        self._owed_receipts = 0.0
        self._waiting = waiting
        self._in_flight: dict[int, _InFlight] = {}
        self._window = 1
        self._next_id = 1
        self._awaited: dict[int, float] = {}
        self._connection: Connection | None = None
        self._ready = False
        self._pump_due = False
        self._connack: asyncio.Future[mqtt5.ConnAckPacket] | None = None
        self._subacks: asyncio.Queue[mqtt5.SubAckPacket] = asyncio.Queue()

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
        """Connect, and again with growing, jittered pauses, until cancelled. Raises `Refused`."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    closed = await self._connect()
                    pause_s, self._tally.trouble = _FIRST_PAUSE_S, ""
                    await closed
                except (OSError, TimeoutError, EOFError) as error:
                    self._tally.trouble = f"broker: {str(error) or type(error).__name__}"
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                self._ready = False
                self._tally.reconnects += 1
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        finally:
            if self._connection is not None:
                self._connection.disconnect()

    async def _connect(self) -> "asyncio.Future[str]":
        loop = asyncio.get_running_loop()
        self._connack = loop.create_future()
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: Connection(self._broker, self._client_id, self._received),
                self._broker.host,
                self._broker.port,
                ssl=self._broker.tls,
            )
            self._connection = connection
            try:
                connack = await answer(connection, self._connack)
                self._greet(connack)
                await self._subscribe(connection)
            except BaseException:
                connection.abort("could not open the session")
                raise
        self._again(connection, connack.session_present)
        return connection.closed

    def _greet(self, connack: mqtt5.ConnAckPacket) -> None:
        code = mqtt5.ConnAckReasonCode
        if connack.reason_code in (code.BAD_USER_NAME_OR_PASSWORD, code.NOT_AUTHORIZED, code.BANNED):
            raise Refused(f"the broker refuses this account: {connack.reason_code.name}")
        if connack.reason_code != code.SUCCESS:
            raise EOFError(connack.reason_code.name)
        self._window = min(connack.receive_max, _MOST_IN_FLIGHT)

    async def _subscribe(self, connection: Connection) -> None:
        """Each device listens to its own receipts, by name: no wildcard hears another's."""
        own = [_receipt_topic(topic) for topic in self._topics.values()] if self._receipt_share else []
        for start in range(0, len(own), _FILTERS_PER_SUBSCRIBE):
            topics = own[start : start + _FILTERS_PER_SUBSCRIBE]
            filters = [mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for topic in topics]
            connection.write(mqtt5.SubscribePacket(self._free_id(), filters).write())
            suback = await answer(connection, asyncio.ensure_future(self._subacks.get()))
            if any(code not in _GRANTED for code in suback.reason_codes):
                raise Refused(f"the broker refuses a subscription like {topics[0]}")

    def _again(self, connection: Connection, session_present: bool) -> None:
        """Publish anew what the last connection left unacknowledged, then go on."""
        dup = _DUP if session_present else 0
        for flight in self._in_flight.values():
            connection.write(bytes((flight.packet[0] | dup,)) + flight.packet[1:])
        self._ready = True
        self._pump_soon()

    # -- out

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Send what the window allows: first all of it into the ledger, then to the socket."""
        self._pump_due = False
        connection = self._connection
        packets: list[bytes] = []
        if self._ready and connection is not None and connection.writable:
            now = time.monotonic()
            while self._waiting and len(self._in_flight) < self._window:
                packets.append(self._publish(self._waiting.take(), now))
        self._ledger.flush()
        if packets and connection is not None:
            connection.write(b"".join(packets))

    def _publish(self, message: Message, now: float) -> bytes:
        topic, count = self._topics[message.device], len(message.items)
        self._owed_receipts += self._receipt_share
        asks = self._owed_receipts >= 1
        flags = (IN_ARRAY if message.is_array else 0) | (RECEIPT_ASKED if asks else 0)
        first = self._ledger.sent(message.device, message.items, flags)
        packet_id = self._free_id()
        if asks:
            self._owed_receipts -= 1
            self._awaited[first] = now
        packet = mqtt5.PublishPacket(
            topic,
            message.payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=packet_id,
            response_topic=_receipt_topic(topic) if asks else None,
            correlation_data=CORRELATION.pack(self._run_id, first, count) if asks else None,
        ).write()
        self._in_flight[packet_id] = _InFlight(now, first, count, packet)
        self._tally.sent += count
        return packet

    def _free_id(self) -> int:
        while self._next_id in self._in_flight:
            self._next_id = self._next_id % 65535 + 1
        taken, self._next_id = self._next_id, self._next_id % 65535 + 1
        return taken

    # -- in

    def _received(self, packets: Sequence[object]) -> None:
        now = time.monotonic()
        for packet in packets:
            if type(packet) is mqtt5.PubAckPacket:
                self._acknowledged(packet, now)
            elif type(packet) is mqtt5.PublishPacket:
                self._receipt(packet, now)
            elif type(packet) is mqtt5.ConnAckPacket and self._connack is not None and not self._connack.done():
                self._connack.set_result(packet)
            elif type(packet) is mqtt5.SubAckPacket:
                self._subacks.put_nowait(packet)
            elif type(packet) is mqtt5.DisconnectPacket and self._connection is not None:
                self._connection.abort(packet.reason_code.name)
        self._pump_soon()

    def _acknowledged(self, packet: mqtt5.PubAckPacket, now: float) -> None:
        flight = self._in_flight.pop(packet.packet_id, None)
        if flight is None:
            return
        if packet.reason_code == mqtt5.PubAckReasonCode.SUCCESS:
            self._ledger.acknowledged(PUBACK, flight.first, flight.items)
            self._tally.pubacks += flight.items
            self._tally.puback_latency.add(now - flight.sent_at, flight.items)
        else:  # the broker has not kept it, or nobody was subscribed
            self._ledger.acknowledged(REFUSED, flight.first, flight.items)
            self._tally.refused += flight.items

    def _receipt(self, packet: mqtt5.PublishPacket, now: float) -> None:
        if packet.packet_id is not None and self._connection is not None:
            self._connection.write(mqtt5.PubAckPacket(packet.packet_id).write())
        if packet.correlation_data is None or len(packet.correlation_data) != CORRELATION.size:
            return
        run_id, first, count = CORRELATION.unpack(packet.correlation_data)
        if run_id != self._run_id:
            return
        self._ledger.acknowledged(RECEIPT, first, count)
        self._tally.receipts += count
        receipt = json.loads(packet.payload)
        self._tally.rejected += len(receipt["rejected"])
        self._tally.warnings += self._ledger.warned(first, receipt.get("warnings", ()))
        if (asked_at := self._awaited.pop(first, None)) is not None:
            self._tally.receipt_latency.add(now - asked_at, count)


def _receipt_topic(topic: str) -> str:
    """Where a device that publishes to `topic` is told what became of its messages."""
    return topic.removesuffix("telemetry") + "receipt"
