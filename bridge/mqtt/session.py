"""The client's side of an MQTT 5 session without I/O: bytes and times in, events and bytes out. QoS 0 and 1.

The session outlives its connections; between `connect` and `connection_lost` it has one. Section numbers are those of
the OASIS standard, version 5.0.

Received messages are numbered in the order of receipt, over all connections. The caller settles a message by its
number, at any time and in any order. PUBACKs are sent in the order of receipt (MQTT-4.6.0-2), each once. A number
belongs to one connection, and its message is not acknowledged on another: packet ids are assigned per connection, so a
late PUBACK could acknowledge a different message.
"""

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, cast

import mqtt5

from bridge.mqtt.codec import Decoder, Malformed

_LARGEST_PACKET = 268_435_460  # five bytes of header and the largest remaining length (section 2.1.4)
_PACKET_IDS = 65_535
_DUP = 0x08
_PUBACK = struct.Struct(">HH").pack  # reason code Success is implied; the codec takes five times as long
_PUBACK_HEADER = 0x4002


class Messages(NamedTuple):
    """Consecutive PUBLISH packets; each must be settled, independent of its QoS."""

    packets: list[mqtt5.PublishPacket]
    first: int
    """The number of the first packet; the others have the following numbers."""
    has_qos_0: bool
    """Whether some of them have QoS 0."""


class Ended(NamedTuple):
    """The connection must be closed; no event follows."""

    code: mqtt5.DisconnectReasonCode
    detail: str

    @property
    def reason(self) -> str:
        """The reason as text, for a log."""
        return f"{self.code.name}: {self.detail}" if self.detail else self.code.name


Event = Messages | mqtt5.ConnAckPacket | mqtt5.SubAckPacket | mqtt5.PubAckPacket | Ended


class PacketTooLarge(ValueError):
    """A packet exceeds the broker's maximum packet size; it would close the connection (MQTT-3.2.2-15)."""


class WindowFull(ValueError):
    """The number of unacknowledged messages has reached the broker's Receive Maximum (MQTT-3.3.4-7)."""


class Session:
    """The session state of one client. `greeting` is the CONNECT of every connection."""

    def __init__(self, greeting: mqtt5.ConnectPacket) -> None:
        self._greeting = greeting
        self._decoder = Decoder()
        self._open = False
        self._out: list[bytes] = []
        self._heard_at = self._ping_at = 0.0
        self._unacked: deque[int | None] = deque()  # packet ids in the order of receipt; None with QoS 0
        self._oldest = 0  # the number of the first of them
        self._connection_first = 0
        self._settled: list[tuple[int, int]] = []  # number and count, sorted: settled, while an older message is not
        self._in_flight: dict[int, bytes] = {}
        self._last_id = 0
        self.connack: mqtt5.ConnAckPacket | None = None
        """The broker's answer on this connection."""

    # -- connections

    def connect(self, now: float) -> None:
        """Begin a connection with CONNECT (section 3.1). `now` is in seconds, of any monotonic clock."""
        self.connection_lost()
        self._decoder, self._open, self.connack = Decoder(), True, None
        self._send(self._greeting.write())
        self._heard_at = now
        self._ping_at = now + self._keep_alive_s / 2

    def connection_lost(self) -> None:
        """The network connection is closed; messages received on it can no longer be acknowledged."""
        self._open = False
        self._out.clear()
        self._settled.clear()
        self._oldest = self._connection_first = self._oldest + len(self._unacked)
        self._unacked.clear()

    def disconnect(self, session_expiry_s: int | None = None) -> None:
        """Send DISCONNECT (section 3.14), so that the will is not published. No packet may follow it."""
        self._send(mqtt5.DisconnectPacket(session_expiry_interval=session_expiry_s).write())
        self._open = False

    def data_to_send(self) -> bytes:
        """Return the bytes to write to the connection; each byte is returned once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # -- receiving

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Process received bytes. Consecutive messages share one event."""
        self._heard_at = now
        events: list[Event] = []
        for kind, packets in groupby(self._decoder.feed(data) if self._open else (), type):
            if kind is mqtt5.PublishPacket and self.connack is not None and self._open:
                events.append(self._received(cast(list[mqtt5.PublishPacket], list(packets))))
            else:
                events += [event for packet in packets if (event := self._control(packet))]
        return events

    def _received(self, packets: list[mqtt5.PublishPacket]) -> Messages:
        ids = [packet.packet_id for packet in packets]
        messages = Messages(packets, self._oldest + len(self._unacked), None in ids)
        self._unacked += ids
        return messages

    def _control(self, packet: mqtt5.Packet | Malformed) -> Event | None:
        if not self._open or isinstance(packet, mqtt5.PingRespPacket):
            return None
        if isinstance(packet, mqtt5.DisconnectPacket):
            return self._end(packet.reason_code, packet.reason_str or "sent by the broker")
        if isinstance(packet, Malformed):
            return self._end(mqtt5.DisconnectReasonCode.MALFORMED_PACKET, packet.reason)
        if isinstance(packet, mqtt5.ConnAckPacket) and self.connack is None:
            self.connack = packet
            self._ping_at = min(self._ping_at, self._heard_at + self._keep_alive_s / 2)
        elif isinstance(packet, mqtt5.PubAckPacket) and self.connack is not None:
            self._in_flight.pop(packet.packet_id, None)
        elif not isinstance(packet, mqtt5.SubAckPacket) or self.connack is None:
            return self._end(mqtt5.DisconnectReasonCode.PROTOCOL_ERROR, f"unexpected {type(packet).__name__}")
        return packet

    def _end(self, code: mqtt5.DisconnectReasonCode, detail: str) -> Ended:
        self._open = False
        return Ended(code, detail)

    def is_stale(self, number: int) -> bool:
        """Whether a message can no longer be acknowledged, because its connection is closed."""
        return not self._open or number < self._connection_first

    def settle(self, first: int, count: int) -> int:
        """Settle `count` messages, starting with number `first`. Returns how many PUBACKs this releases.

        A PUBACK waits until all older messages are settled. Stale messages are ignored. Raises `ValueError` when the
        messages were not received, or are settled already.
        """
        if self.is_stale(first):
            return 0
        waiting = range(self._oldest, self._oldest + len(self._unacked))
        # While an older message is not settled, tens of thousands of ranges may be.
        place = bisect_left(self._settled, (first,))
        neighbours = self._settled[max(0, place - 1) : place + 1]
        overlaps = any(start < first + count and first < start + settled for start, settled in neighbours)
        if count < 1 or first not in waiting or first + count > waiting.stop or overlaps:
            raise ValueError(f"{count} messages from number {first} on do not wait to be settled")
        self._settled.insert(place, (first, count))
        packet_ids: list[int | None] = []
        released = 0
        for start, settled in self._settled:
            if start != self._oldest:
                break
            self._oldest += settled
            released += 1
            packet_ids += [self._unacked.popleft() for _ in range(settled)]
        del self._settled[:released]
        pubacks = [_PUBACK(_PUBACK_HEADER, packet_id) for packet_id in packet_ids if packet_id is not None]
        self._out += pubacks
        return len(pubacks)

    # -- sending

    @property
    def send_maximum(self) -> int:
        """Maximum number of messages that the broker has not acknowledged (section 3.2.2.3.3)."""
        return self.connack.receive_max if self.connack is not None else 0

    @property
    def _packet_limit(self) -> int:
        """The broker's maximum packet size in bytes (section 3.2.2.3.6)."""
        return (self.connack and self.connack.max_packet_size) or _LARGEST_PACKET

    def subscribe(self, filters: Sequence[mqtt5.TopicFilter]) -> None:
        """Send SUBSCRIBE (section 3.8); the broker answers with SUBACK."""
        self._send(mqtt5.SubscribePacket(self._free_id(), list(filters)).write())

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: mqtt5.QoS = mqtt5.QoS.AT_MOST_ONCE,
        retain: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
    ) -> int | None:
        """Send PUBLISH (section 3.3). Returns the packet id (QoS 0: None). Raises `PacketTooLarge`, `WindowFull`."""
        packet_id = None
        if qos != mqtt5.QoS.AT_MOST_ONCE:
            if len(self._in_flight) >= self.send_maximum:
                raise WindowFull(f"{len(self._in_flight)} messages are in flight")
            packet_id = self._free_id()
        packet = mqtt5.PublishPacket(
            topic,
            payload,
            qos=qos,
            retain=retain,
            packet_id=packet_id,
            response_topic=response_topic,
            correlation_data=correlation_data,
        ).write()
        if len(packet) > self._packet_limit:
            raise PacketTooLarge(f"{len(packet)} bytes")
        if packet_id is not None:
            self._in_flight[packet_id] = packet
        self._send(packet)
        return packet_id

    def resend(self) -> int:
        """Send unacknowledged messages of earlier connections again, in order (MQTT-4.4.0-1). Returns their number.

        A broker that has lost the session receives them as new messages, without the DUP flag.
        """
        dup = _DUP if self.connack is not None and self.connack.session_present else 0
        for packet in self._in_flight.values():
            self._send(bytes((packet[0] | dup,)) + packet[1:])
        return len(self._in_flight)

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % _PACKET_IDS + 1
            if self._last_id not in self._in_flight:
                return self._last_id

    def _send(self, packet: bytes) -> None:
        if self._open:
            self._out.append(packet)

    # -- time

    @property
    def _keep_alive_s(self) -> int:
        """The broker's value overrides the client's (section 3.2.2.3.14); 0 disables it."""
        return (self.connack and self.connack.server_keep_alive) or self._greeting.keep_alive

    def next_deadline(self) -> float | None:
        """When `handle_deadline` is due, on the clock of `connect`; None means never. A CONNACK may make it earlier."""
        if not self._open or not self._keep_alive_s:
            return None
        return self._ping_at

    def handle_deadline(self, now: float, *, listening: bool) -> list[Event]:
        """Ping twice per keep-alive interval (section 3.1.2.10); end a connection without data for 1.5 intervals.

        While reading is paused (not `listening`), the absence of data is not counted.
        """
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        if not listening:
            self._heard_at = now
        silent_s = now - self._heard_at
        if silent_s > self._keep_alive_s * 1.5:
            return [self._end(mqtt5.DisconnectReasonCode.KEEP_ALIVE_TIMEOUT, f"no data received for {silent_s:.0f} s")]
        self._send(mqtt5.PingReqPacket().write())
        self._ping_at = now + self._keep_alive_s / 2
        return []
