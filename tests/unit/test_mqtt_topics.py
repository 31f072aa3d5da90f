"""Mistaken topics: what is meant by them, and who may publish to them and hear them."""

import pytest

from bridge.sources.mqtt_topics import MISTAKEN_FILTERS, meant
from mosquitto.broker import access_list


@pytest.mark.parametrize("topic", [each.replace("+", "A_1") for each in MISTAKEN_FILTERS])
def test_the_topic_that_is_meant(topic: str) -> None:
    kind = next(level for level in topic.split("/") if level in ("vehicle", "meter"))
    assert meant(topic) == f"fleet/{kind}/A_1/telemetry"


@pytest.mark.parametrize(
    "topic",
    [
        *(
            "fleet/vehicle/A_1/telemetry",
            "fleet/vehicle/A_1/telemetry//",
            "/fleet/vehicle/A_1/telemetry/",
            "fleet/bus/A_1/Telemetry",
        ),
        *("fleet/vehicle/Telemetry", "fleet/vehicle//A_1/telemetry", "pairs/A_1", "fleet/vehicle/A_1/receipts", ""),
    ],
)
def test_any_other_topic_is_what_it_is(topic: str) -> None:
    assert meant(topic) is None


def test_a_device_may_publish_to_them_and_the_bridge_hears_them() -> None:
    rules = access_list().splitlines()
    for each in MISTAKEN_FILTERS:
        assert f"topic read {each}" in rules
        own = each.replace("vehicle/+", "%u").replace("meter/+", "%u")
        assert f"pattern write {own}" in rules
