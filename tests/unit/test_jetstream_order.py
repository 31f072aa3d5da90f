"""Deliveries of a consumer without a gap, and the topics that subjects stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.jetstream_order import Order, OutOfOrder
from bridge.streams.jetstream_subjects import (
    MQTT_STREAM,
    filters,
    place_of,
    quoted,
    stream_subjects,
    subject_of,
    topic_named,
    unquoted,
)
from bridge.streams.jetstream_target import headers_of, id_of, problem_in
from bridge.streams.port import Message


def reply(number: int) -> str:
    return f"$JS.ACK.$MQTT_msgs.fleet-bridge.1.900{number}.{number}.1795924650758492176.6"


def test_deliveries_in_order_are_counted() -> None:
    order = Order()
    order.awaited = 5
    for number in (1, 2, 3):
        order.arrived(reply(number))
    order.idle({"Nats-Last-Consumer": "3"})
    assert order.ended({"Nats-Pending-Messages": "2"})
    assert order.awaited == 0


def test_reply_subject_with_a_domain_is_understood() -> None:
    order = Order()
    order.arrived("$JS.ACK.hub.ACCOUNT.FLEET.fleet-bridge.1.77.1.1795924650758492176.6.r4nd0m")
    assert order.last == 1


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_delivery_that_does_not_follow_the_last_is_refused(numbers: list[int]) -> None:
    order, last = Order(), 0
    for number in numbers:
        if number == last + 1:
            order.arrived(reply(number))
            last = number
        else:
            with pytest.raises(OutOfOrder):
                order.arrived(reply(number))
            assert order.last == last


def test_loss_of_the_last_delivery_is_seen_in_a_heartbeat() -> None:
    order = Order()
    order.arrived(reply(1))
    with pytest.raises(OutOfOrder):
        order.idle({"Nats-Last-Consumer": "2"})


def test_end_without_a_count_is_no_orderly_end() -> None:
    assert not Order().ended({"Status": "409"})


@pytest.mark.parametrize(
    ("subject", "topic", "receipt"),
    [
        ("$MQTT.msgs.fleet.vehicle.EV_1.telemetry", "fleet/vehicle/EV_1/telemetry", None),
        ("fleet.meter.M//1.telemetry", "fleet/meter/M.1/telemetry", None),
        ("fleet.vehicle.EV_1.telemetry.7//a", "fleet/vehicle/EV_1/telemetry", "fleet.vehicle.EV_1.receipt.7//a"),
        ("fleet.vehicle.EV_1.other.7", "fleet/vehicle/EV_1/other/7", None),
    ],
)
def test_subject_stands_for_a_topic(subject: str, topic: str, receipt: str | None) -> None:
    assert place_of(subject) == (topic, receipt)


def test_filters_are_those_of_the_contract() -> None:
    assert "$MQTT.msgs.fleet.vehicle.*.telemetry" in filters(MQTT_STREAM)
    assert "fleet.meter.*.telemetry.*" in filters("FLEET")
    assert stream_subjects(MQTT_STREAM) == ["$MQTT.msgs.>"]


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=300))  # topics are UTF-8
def test_subject_of_any_topic_can_be_sent_and_its_message_tells_the_topic(name: str) -> None:
    topic = f"fleet/meter/{name}/telemetry"
    subject, header = subject_of(topic), headers_of(Message(topic, b"")).get("Fleet-Topic")
    assert subject.isascii()
    assert not set(subject) & set(" \t\r\n*>\0")
    assert len(subject.split(".")) == 4
    assert (place_of(subject).topic if header is None else topic_named(f"partition.3.{subject}", header)) == topic
    assert header is None or (header.isascii() and header.isprintable())


def test_header_cannot_name_another_device_than_the_subject() -> None:
    assert topic_named("fleet.vehicle.EV_1.telemetry", "fleet/vehicle/EV_2/telemetry") == "fleet/vehicle/EV_1/telemetry"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_in_a_header_comes_back(text: str) -> None:
    assert quoted(text).isascii()
    assert not quoted(text) or quoted(text).isprintable()
    assert unquoted(quoted(text)) == text


def test_ids_differ_where_messages_do() -> None:
    messages = [
        Message("a", b"1"),
        Message("a", b"2"),
        Message("b", b"1"),
        Message("a", b"1", "text"),
        Message("a", b"1", None, "text"),
        Message("a", b"1", None, None, b"text"),
        Message("a", b"text1"),
    ]
    assert len({id_of(message) for message in messages}) == len(messages)
    assert id_of(Message("a", b"1")) == id_of(messages[0])


@pytest.mark.parametrize(
    ("answer", "headers", "problem"),
    [
        (b'{"stream":"FLEET","seq":7}', None, None),
        (b'{"stream":"FLEET","seq":7,"duplicate":true}', None, None),
        (b'{"error":{"code":503,"description":"maximum bytes exceeded"}}', None, "maximum bytes exceeded"),
        (b"", {"Status": "503"}, "no stream answers"),
        (b"?", None, "an answer that is not JSON"),
        (b"{}", None, "an answer without a sequence number"),
    ],
)
def test_answer_of_the_stream(answer: bytes, headers: dict[str, str] | None, problem: str | None) -> None:
    assert problem_in(answer, headers) == problem
