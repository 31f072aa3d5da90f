"""Deliveries of a consumer without a gap, and the topics that subjects stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.jetstream_order import Order, OutOfOrder
from bridge.sources.jetstream_subjects import MQTT_STREAM, filters, place_of, stream_subjects


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
