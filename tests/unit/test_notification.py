"""The signature of a webhook against the example that the libraries of Standard Webhooks test with."""

import base64
import hmac
import json
import textwrap
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.alarms.notification import Notification, signed_headers

RAISED, CLEARED = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
ALARM: dict[str, Any] = {
    "id": 7,
    "rule": "silent",
    "severity": "warning",
    "kind": "meter",
    "device": "M_1",
    "site": None,
    "raised_at": RAISED,
    "cleared_at": CLEARED,
    "acknowledged_at": None,
    "acknowledged_by": None,
    "note": None,
    "value": 6.0,
    "bound": 5.0,
    "unit": "intervals",
    "message": "m",
}


def test_signature_is_that_of_the_standard() -> None:
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


def test_receiver_of_the_documentation_accepts_what_is_signed_and_nothing_else() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "alarms.md").read_text()
    begin = page.index("    def is_ours(")
    names: dict[str, Any] = {"base64": base64, "hmac": hmac, "time": time, "Mapping": Mapping}
    exec(textwrap.dedent(page[begin : page.index("\n\n", begin)]), names)  # our own page
    is_ours, secret, body = names["is_ours"], "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"type": "alarm.raised"}'
    headers = signed_headers(secret, "alarm-7-raised", int(time.time()), body)
    assert is_ours(headers, body, secret)
    assert is_ours(headers | {"webhook-signature": f"v1,bm90aGluZw== {headers['webhook-signature']}"}, body, secret)
    assert not is_ours(headers, body + b" ", secret)
    assert not is_ours(headers, body, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx")
    assert not is_ours(signed_headers(secret, "alarm-7-raised", int(time.time()) - 600, body), body, secret)


def test_document_of_a_raised_alarm_is_the_same_after_it_was_cleared() -> None:
    raised, cleared = Notification(1, "raised", 1, ALARM), Notification(2, "cleared", 1, ALARM)
    assert json.loads(raised.body)["data"]["clearedAt"] is None
    document = json.loads(cleared.body)
    assert (document["type"], document["timestamp"]) == ("alarm.cleared", "2026-02-02T00:00:00Z")
    assert document["data"]["clearedAt"] == "2026-02-02T00:00:00Z"
    assert (raised.id, cleared.id) == ("alarm-7-raised", "alarm-7-cleared")


def test_topic_is_the_device_or_the_rule_of_the_system() -> None:
    assert Notification(1, "raised", 1, ALARM).topic == "fleet/alarm/meter/M_1"
    system = ALARM | {"kind": None, "device": None, "rule": "disk-forecast"}
    assert Notification(1, "raised", 1, system).topic == "fleet/alarm/system/disk-forecast"
