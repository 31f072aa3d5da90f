"""A device is told what was rejected, once, within its share, and below its own topic."""

import json
from collections.abc import Sequence

import pytest

from bridge.delivery import Kept, Outcome
from bridge.errors import Rejected
from bridge.sources.notices import Notices

TOPIC = "fleet/vehicle/EV_1/telemetry"


def rejected(payload: bytes = b"1", topic: str | None = TOPIC, detail: str = "") -> Rejected:
    return Rejected("not_json", detail, payload, topic)


def told(outcomes: Sequence[Outcome], *answered: range, now: float = 0.0, notices: Notices | None = None) -> list[str]:
    return [json.loads(text)["reading"] for _, text in (notices or Notices()).of(outcomes, answered, now)]


def test_rejects_without_a_receipt_are_told() -> None:
    outcomes: list[Outcome] = [Kept.STORED, rejected(b"a"), Kept.DUPLICATE, rejected(b"b"), rejected(b"c")]
    assert told(outcomes) == ["a", "b", "c"]
    assert told(outcomes, range(2), range(4, 5)) == ["b"]
    assert told([Kept.STORED, Kept.DUPLICATE]) == []


@pytest.mark.parametrize("topic", [None, "", "shellies/x/info", "fleet/vehicle/EV_1", "fleet/vehicle/EV_1/status"])
def test_only_a_telemetry_topic_has_notices(topic: str | None) -> None:
    assert told([rejected(topic=topic)]) == []


def test_share_is_of_each_device() -> None:
    notices = Notices()
    others = "fleet/meter/METER_1/telemetry"
    assert len(told([rejected()] * 300, notices=notices)) == 100
    assert told([rejected(topic=others)], notices=notices) == ["1"]
    assert len(told([rejected()] * 300, now=5.0, notices=notices)) == 5


@pytest.mark.parametrize("payload", [b"\xff\0" * 10_000, "\u20ac".encode() * 10_000, b'{"a\\ud800":1}'])
def test_any_reading_can_be_told_within_a_small_message(payload: bytes) -> None:
    ((topic, text),) = Notices().of([rejected(payload, detail="field \ud800")], [], 0.0)
    assert topic == "fleet/vehicle/EV_1/rejects"
    assert len(text) < 8_192
    assert len(json.loads(text)["reading"]) <= 1_024
