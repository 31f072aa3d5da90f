"""What is kept because it cannot be a reading."""

import mqtt5

from tests.acceptance.attacks import payloads
from tests.acceptance.attacks.attack import Attack
from tests.acceptance.attacks.bodies import posting
from tests.acceptance.attacks.messages import acknowledged, flooding, sending

ATTACKS = (
    Attack("reject-arrays", "disk", "arrays of 1,000 numbers over MQTT", sending(payloads.numbers, distinct=200)),
    Attack("reject-messages", "disk", "100 kB that are not JSON, over MQTT", sending(payloads.garbage, 100_000, 500)),
    Attack("small-rejects", "disk", "small messages that are not JSON", sending(payloads.garbage, 20, 10_000)),
    Attack("few-rejects-qos-1", "disk", "arrays of 60 numbers, QoS 1", acknowledged(payloads.numbers, 220, 5_000)),
    Attack(
        "small-rejects-qos-1",
        "disk",
        "small messages that are not JSON, QoS 1",
        acknowledged(payloads.garbage, 20, 5_000),
    ),
    Attack(
        "reject-flood-qos-1",
        "disk",
        "arrays of 3 numbers, QoS 1, without waiting for PUBACKs",
        flooding(lambda: b"[1,2,3]", mqtt5.QoS.AT_LEAST_ONCE),
    ),
    Attack("light-rejects-qos-1", "disk", "arrays of 15 numbers, QoS 1", acknowledged(payloads.numbers, 80, 5_000)),
    Attack(
        "conflicts",
        "disk",
        "readings of one moment with other values, over MQTT",
        sending(payloads.conflicts, 100_000, 200),
    ),
    Attack(
        "reject-bodies",
        "disk",
        "arrays of 10,000 numbers over HTTP, 8 at a time",
        posting(payloads.numbers, 1_000_000, 8),
    ),
    Attack(
        "forbidden",
        "disk",
        "10,000 readings of others over HTTP, 8 at a time",
        posting(payloads.of_others, 1_000_000, 8),
    ),
)
