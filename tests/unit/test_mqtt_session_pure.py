"""The MQTT session without a network: the bytes it sends, the events it returns, and the order of PUBACKs."""

from collections import deque
from itertools import count, takewhile

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.mqtt.codec import Decoder, refused
from bridge.mqtt.session import Ended, Event, Messages, PacketTooLarge, Session, WindowFull

KEEP_ALIVE_S = 30
GREETING = mqtt5.ConnectPacket("bridge", receive_max=5, keep_alive=KEEP_ALIVE_S)
panics = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the codec, over bad UTF-8
CONNACK = b"\x20\x03\x00\x00\x00"
PUBACK_7 = b"\x40\x02\x00\x07"
PUBLISH_7 = b"\x32\x07\x00\x01t\x00\x07\x00x"  # topic t, packet id 7, no properties, payload x


def connected(connack: bytes = CONNACK, greeting: mqtt5.ConnectPacket = GREETING) -> Session:
    """A session on its first connection, at second 0, with nothing to send."""
    session = Session(greeting)
    session.connect(0)
    assert isinstance(session.receive_data(connack, 0)[0], mqtt5.ConnAckPacket)
    session.data_to_send()
    return session


def the_end(events: list[Event]) -> Ended:
    """The last event, which ends the connection."""
    assert isinstance(events[-1], Ended)
    return events[-1]


# -- Golden bytes, written by hand from the standard


def test_connect_asks_for_the_durable_session_with_account_window_and_will() -> None:
    session = Session(
        mqtt5.ConnectPacket(
            "me",
            username="u",
            password=b"p",
            session_expiry_interval=60,
            receive_max=100,
            keep_alive=30,
            will=mqtt5.Will("s", payload=b"off", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
        )
    )
    session.connect(0)
    assert session.data_to_send() == (
        b"\x10\x26\x00\x04MQTT\x05\xec\x00\x1e"  # user, password, will retained with QoS 1, no clean start; 30 s
        b"\x08\x11\x00\x00\x00\x3c\x21\x00\x64"  # session expiry 60 s, receive maximum 100
        b"\x00\x02me\x00\x00\x01s\x00\x03off\x00\x01u\x00\x01p"
    )


def test_subscribe_has_a_packet_id_and_the_options_of_each_filter() -> None:
    session = connected()
    session.subscribe(
        [
            mqtt5.TopicFilter(
                "a/+",
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            ),
            mqtt5.TopicFilter("b", max_qos=mqtt5.QoS.AT_MOST_ONCE),
        ]
    )
    assert session.data_to_send() == b"\x82\x0d\x00\x01\x00\x00\x03a/+\x19\x00\x01b\x08"


def test_publish_carries_response_topic_and_correlation_data() -> None:
    session = connected()
    assert session.publish("t", b"{}", qos=mqtt5.QoS.AT_LEAST_ONCE, response_topic="r", correlation_data=b"\x00n") == 1
    assert session.data_to_send() == b"\x32\x11\x00\x01t\x00\x01\x09\x08\x00\x01r\x09\x00\x02\x00n{}"


def test_puback_is_four_bytes_and_a_message_with_qos_0_gets_none() -> None:
    session = connected()
    (messages,) = session.receive_data(b"\x30\x05\x00\x01t\x00y" + PUBLISH_7, 1)
    assert isinstance(messages, Messages)
    assert [packet.payload for packet in messages.packets] == [b"y", b"x"]
    assert session.settle(messages.first, 2) == 1
    assert session.data_to_send() == PUBACK_7


def test_disconnect_is_the_last_thing_said() -> None:
    session = connected()
    session.disconnect()
    session.publish("t", b"")
    assert session.data_to_send() == b"\xe0\x00"
    session = connected()
    session.disconnect(session_expiry_s=0)
    assert session.data_to_send() == b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00"


# -- The order of acknowledgements


class Acknowledgements(RuleBasedStateMachine):
    """A broker that respects the window, a network that splits anywhere, and an owner that settles in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(GREETING)
        self.network = b""
        self.sent: deque[tuple[int | None, int]] = deque()  # packet id, payload: on this connection, not received yet
        self.payloads = 0
        self.connection = 0
        self.received: dict[int, tuple[int, int | None]] = {}  # number: connection, packet id
        self.settled: set[int] = set()
        self.acked: list[int] = []  # packet ids, on this connection
        self.unacked: set[int] = set()

    @initialize()
    def first_connection(self) -> None:
        self.connect()

    @rule()
    def connect(self) -> None:
        self.session.connection_lost()
        assert self.session.data_to_send() == b""
        self.session.connect(0)
        assert self.session.data_to_send() == GREETING.write()
        self.connection += 1
        self.network = CONNACK
        self.sent.clear()
        self.acked, self.unacked = [], set()

    @rule(qos=st.sampled_from([0, 1]), messages=st.integers(1, 4))
    def broker_publishes(self, qos: int, messages: int) -> None:
        for _ in range(messages):
            free = set(range(1, GREETING.receive_max + 1)) - self.unacked
            if qos and not free:
                return
            packet_id = min(free) if qos else None
            self.unacked |= {packet_id} if packet_id else set()
            self.payloads += 1
            self.sent.append((packet_id, self.payloads))
            payload = str(self.payloads).encode()
            self.network += mqtt5.PublishPacket("t", payload, qos=mqtt5.QoS(qos), packet_id=packet_id).write()

    @precondition(lambda self: bool(self.network))
    @rule(data=st.data())
    def network_delivers(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, len(self.network)))
        chunk, self.network = self.network[:size], self.network[size:]
        for event in self.session.receive_data(chunk, 0):
            if isinstance(event, Messages):
                for number, packet in enumerate(event.packets, event.first):
                    assert (packet.packet_id, int(packet.payload)) == self.sent.popleft()
                    self.received[number] = self.connection, packet.packet_id
            else:
                assert isinstance(event, mqtt5.ConnAckPacket)

    @rule(data=st.data(), most=st.integers(1, 4))
    def owner_settles(self, data: st.DataObject, most: int) -> None:
        if waiting := self.received.keys() - self.settled:
            first = data.draw(st.sampled_from(sorted(waiting)))
            connection, _ = self.received[first]
            together = list(takewhile(lambda n: n in waiting and self.received[n][0] == connection, count(first)))[
                :most
            ]
            self.settled.update(together)
            self.session.settle(first, len(together))

    @rule(data=st.data())
    def owner_settles_twice(self, data: st.DataObject) -> None:
        if here := [number for number in self.settled if self.received[number][0] == self.connection]:
            with pytest.raises(ValueError, match="do not wait"):
                self.session.settle(data.draw(st.sampled_from(sorted(here))), 1)

    @invariant()
    def acknowledged_are_the_messages_before_the_oldest_unsettled_one(self) -> None:
        for packet in Decoder().feed(self.session.data_to_send()):
            assert isinstance(packet, mqtt5.PubAckPacket)
            self.acked.append(packet.packet_id)
            self.unacked.remove(packet.packet_id)
        here = [number for number, (connection, _) in self.received.items() if connection == self.connection]
        due = [self.received[number][1] for number in takewhile(lambda number: number in self.settled, here)]
        assert self.acked == [packet_id for packet_id in due if packet_id is not None]

    @invariant()
    def numbers_follow_the_order_of_receipt(self) -> None:
        assert list(self.received) == sorted(self.received)


TestAcknowledgements = Acknowledgements.TestCase


def test_late_settlement_releases_nothing_on_the_next_connection() -> None:
    session = connected()
    session.receive_data(PUBLISH_7, 0)
    session.connect(1)
    session.receive_data(CONNACK + PUBLISH_7, 1)
    session.data_to_send()
    assert session.is_stale(0)
    assert session.settle(0, 1) == 0
    assert session.data_to_send() == b""
    assert not session.is_stale(1)
    assert session.settle(1, 1) == 1
    assert session.data_to_send() == PUBACK_7


@pytest.mark.parametrize(("first", "count"), [(0, 0), (0, 3), (2, 1), (5, 1)])
def test_messages_that_were_not_received_cannot_be_settled(first: int, count: int) -> None:
    session = connected()
    session.receive_data(PUBLISH_7 * 2, 0)
    with pytest.raises(ValueError, match="do not wait"):
        session.settle(first, count)
    assert session.data_to_send() == b""


def test_broker_that_exceeds_the_window_is_served_all_the_same() -> None:
    """Mosquitto 2.0.11 sends its whole old window again to a client that comes back with a smaller Receive Maximum."""
    session = connected()
    many = GREETING.receive_max * 3
    (messages,) = session.receive_data(PUBLISH_7 * many, 0)
    assert isinstance(messages, Messages)
    assert session.settle(messages.first, many) == many


# -- Packets of a broker


@given(st.data())
def test_events_do_not_depend_on_where_the_network_cuts(data: st.DataObject) -> None:
    stream = CONNACK + PUBLISH_7 + b"\xd0\x00" + b"\x90\x04\x00\x01\x00\x01" + PUBACK_7 + PUBLISH_7 * 2 + b"\x00\x00"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    session = Session(GREETING)
    session.connect(0)
    events: list[Event] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream) + 1], strict=True):
        events += session.receive_data(stream[start:stop], 0)
    flat = [packet for event in events for packet in (event.packets if isinstance(event, Messages) else [event])]
    kinds = "ConnAckPacket PublishPacket SubAckPacket PubAckPacket PublishPacket PublishPacket Ended"
    assert [type(packet).__name__ for packet in flat] == kinds.split()


@panics
@given(st.binary(min_size=1, max_size=64))
def test_any_bytes_give_events_or_one_end(noise: bytes) -> None:
    session = connected()
    events = session.receive_data(noise, 0) + session.receive_data(noise, 0)
    assert not any(isinstance(event, Ended) for event in events[:-1])


@pytest.mark.parametrize(
    "bytes_",
    [
        pytest.param(b"\x00\x00", id="no such packet"),
        pytest.param(b"\x30\xff\xff\xff\xff", id="length of five bytes"),
        pytest.param(b"\x36\x07\x00\x01t\x00\x07\x00x", id="QoS 3"),
        pytest.param(b"\x30\x04\x00\x01\xff\x00", marks=panics, id="topic that is not UTF-8"),
        pytest.param(b"\x30\x04\x00\x64tt", id="topic longer than its packet"),
    ],
)
def test_malformed_packet_ends_the_connection_and_nothing_follows(bytes_: bytes) -> None:
    session = connected()
    before, end = session.receive_data(PUBLISH_7 + bytes_ + PUBLISH_7, 0)
    assert isinstance(before, Messages)
    assert the_end([end]).code == mqtt5.DisconnectReasonCode.MALFORMED_PACKET
    assert session.receive_data(PUBLISH_7, 0) == []
    assert session.settle(before.first, 1) == 0
    assert session.next_deadline() is None


@pytest.mark.parametrize("packet", [CONNACK, b"\xc0\x00", b"\x50\x02\x00\x07"], ids=["CONNACK", "PINGREQ", "PUBREC"])
def test_packet_that_a_broker_must_not_send_ends_the_connection(packet: bytes) -> None:
    assert the_end(connected().receive_data(packet, 0)).code == mqtt5.DisconnectReasonCode.PROTOCOL_ERROR


def test_message_before_the_connack_ends_the_connection() -> None:
    session = Session(GREETING)
    session.connect(0)
    assert the_end(session.receive_data(PUBLISH_7 * 2, 0)).detail == "unexpected PublishPacket"


def test_disconnect_of_the_broker_says_why() -> None:
    end = the_end(connected().receive_data(b"\xe0\x02\x8e\x00", 0))
    assert end.code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
    assert end.reason.startswith("SESSION_TAKEN_OVER")


def test_refused_filters_are_named() -> None:
    (suback,) = connected().receive_data(b"\x90\x05\x00\x01\x00\x01\x87", 0)
    assert isinstance(suback, mqtt5.SubAckPacket)
    assert refused(suback.reason_codes) == ["NOT_AUTHORIZED"]


# -- Publishing


def test_message_without_puback_is_sent_again_with_dup_and_before_anything_new() -> None:
    session = connected()
    for payload in (b"a", b"b"):
        session.publish("t", payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
    session.receive_data(b"\x40\x02\x00\x01", 0)
    session.connect(1)
    session.receive_data(b"\x20\x03\x01\x00\x00", 1)  # session present
    session.data_to_send()
    session.resend()
    session.publish("t", b"c", qos=mqtt5.QoS.AT_LEAST_ONCE)
    assert session.data_to_send() == b"\x3a\x07\x00\x01t\x00\x02\x00b" + b"\x32\x07\x00\x01t\x00\x03\x00c"


def test_broker_without_the_session_gets_the_message_as_a_new_one() -> None:
    session = connected()
    session.publish("t", b"a", qos=mqtt5.QoS.AT_LEAST_ONCE)
    sent = session.data_to_send()
    session.connect(1)
    session.receive_data(CONNACK, 1)
    session.data_to_send()
    session.resend()
    assert session.data_to_send() == sent


def test_window_of_the_broker_bounds_what_is_in_flight() -> None:
    session = connected(b"\x20\x06\x00\x00\x03\x21\x00\x02")  # receive maximum 2
    assert session.send_maximum == 2
    ids = [session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE) for _ in range(2)]
    with pytest.raises(WindowFull):
        session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE)
    session.receive_data(b"\x40\x02\x00\x01", 0)
    assert [*ids, session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE)] == [1, 2, 3]


def test_packet_larger_than_the_broker_takes_is_not_sent() -> None:
    session = connected(b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x10")  # maximum packet size 16
    session.publish("t", b"x" * 10)
    session.data_to_send()
    with pytest.raises(PacketTooLarge):
        session.publish("t", b"x" * 11, qos=mqtt5.QoS.AT_LEAST_ONCE)
    assert session.data_to_send() == b""


def test_packet_ids_begin_again_behind_the_last_one_that_is_free() -> None:
    session = connected()
    held = session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE)
    for _ in range(65_534):
        packet_id = session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE)
        session.receive_data(mqtt5.PubAckPacket(packet_id or 0).write(), 0)
    assert (held, session.publish("t", b"", qos=mqtt5.QoS.AT_LEAST_ONCE)) == (1, 2)


# -- Keep-alive


def pings(session: Session, now: float, *, listening: bool = True) -> bool:
    assert session.handle_deadline(now, listening=listening) == []
    return session.data_to_send() == b"\xc0\x00"


def test_pings_twice_a_keep_alive() -> None:
    session = connected()
    assert session.next_deadline() == KEEP_ALIVE_S / 2
    assert not pings(session, 14.9)
    assert pings(session, 15)
    assert session.next_deadline() == 30


def test_broker_may_shorten_the_keep_alive() -> None:
    session = connected(b"\x20\x06\x00\x00\x03\x13\x00\x04")
    assert session.next_deadline() == 2


def test_silence_ends_the_connection_after_one_and_a_half_keep_alives() -> None:
    session = connected()
    session.receive_data(b"\xd0\x00", 10)
    assert pings(session, 55)
    assert the_end(session.handle_deadline(70, listening=True)).code == mqtt5.DisconnectReasonCode.KEEP_ALIVE_TIMEOUT
    assert session.next_deadline() is None


def test_no_keep_alive_timeout_while_reading_is_paused() -> None:
    session = connected()
    assert pings(session, 1_000, listening=False)
    assert pings(session, 1_015)


def test_without_keep_alive_nothing_is_due() -> None:
    assert connected(greeting=mqtt5.ConnectPacket("me")).next_deadline() is None


def with_properties(count: int, payload: bytes, qos: mqtt5.QoS = mqtt5.QoS.AT_LEAST_ONCE) -> mqtt5.PublishPacket:
    return mqtt5.PublishPacket(
        "fleet/vehicle/EV_1/telemetry",
        payload,
        qos=qos,
        packet_id=7 if qos != mqtt5.QoS.AT_MOST_ONCE else None,
        response_topic="fleet/vehicle/EV_1/receipt",
        user_properties=[("", "")] * count,
    )


@pytest.mark.parametrize("qos", [mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE])
@pytest.mark.parametrize("payload", [b"x", b"x" * 20_000])
@pytest.mark.parametrize("step", [1_000, 10_000_000])
def test_message_with_very_many_properties_is_read_without_them(qos: mqtt5.QoS, payload: bytes, step: int) -> None:
    after = mqtt5.PublishPacket("a", b"after")
    stream = with_properties(5_000, payload, qos).write() + after.write()
    decoder = Decoder()
    read = [packet for n in range(0, len(stream), step) for packet in decoder.feed(stream[n : n + step])]
    first, second = read
    assert isinstance(first, mqtt5.PublishPacket)
    assert (first.topic, first.payload, first.qos) == ("fleet/vehicle/EV_1/telemetry", payload, qos)
    assert first.packet_id == (7 if qos != mqtt5.QoS.AT_MOST_ONCE else None)
    assert (first.response_topic, first.user_properties) == (None, [])
    assert second == after


def test_large_message_with_some_properties_keeps_them() -> None:
    packet = with_properties(100, b"x" * 20_000)
    assert Decoder().feed(packet.write()) == [packet]


def test_large_message_whose_properties_exceed_it_ends_the_connection() -> None:
    packet = bytearray(with_properties(500, b"").write())
    topic_end = 1 + 2 + 2 + len("fleet/vehicle/EV_1/telemetry") + 2
    packet[topic_end : topic_end + 2] = b"\xff\x7f"
    (malformed,) = Decoder().feed(bytes(packet))
    assert not isinstance(malformed, mqtt5.PublishPacket)
