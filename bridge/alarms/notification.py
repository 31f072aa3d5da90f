"""The document that says that an alarm was raised or cleared, and its signature. Pure.

Signatures are those of Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 of `ID.TIMESTAMP.BODY`.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from bridge.reading import format_timestamp

SECRET_PREFIX = "whsec_"  # noqa: S105  # it marks a secret
_FIELDS = {
    "id": "id",
    "rule": "rule",
    "severity": "severity",
    "kind": "kind",
    "device": "device",
    "site": "site",
    "raised_at": "raisedAt",
    "cleared_at": "clearedAt",
    "acknowledged_at": "acknowledgedAt",
    "acknowledged_by": "acknowledgedBy",
    "note": "note",
    "value": "value",
    "bound": "bound",
    "unit": "unit",
    "message": "message",
}
COLUMNS = tuple(_FIELDS)


class Notification(NamedTuple):
    """One event of an alarm for one target. It may be delivered more than once, always with the same id."""

    delivery: int
    event: str
    attempts: int
    alarm: Mapping[str, Any]
    """The row of the alarm."""

    @property
    def id(self) -> str:
        """By which a receiver recognizes a repetition."""
        return f"alarm-{self.alarm['id']}-{self.event}"

    @property
    def topic(self) -> str:
        """The MQTT topic: the device, or the rule of an alarm that concerns no device of a known kind."""
        if self.alarm["kind"] is None or self.alarm["device"] is None:
            return f"fleet/alarm/system/{self.alarm['rule']}"
        return f"fleet/alarm/{self.alarm['kind']}/{self.alarm['device']}"

    @property
    def body(self) -> bytes:
        """The JSON document; `data` is the alarm as in the API."""
        alarm = {name: _json(self.alarm[column]) for column, name in _FIELDS.items()}
        if self.event == "raised":
            alarm["clearedAt"] = None  # it may have been cleared in the meantime, which the next notification says
        at = alarm["raisedAt"] if self.event == "raised" else alarm["clearedAt"]
        return json.dumps({"type": f"alarm.{self.event}", "timestamp": at, "data": alarm}).encode()


def signed_headers(secret: str, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request; `timestamp` is in seconds since 1970, `secret` as the API has shown it."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "content-type": "application/json",
    }


def _json(value: object) -> object:
    return format_timestamp(value) if isinstance(value, datetime) else value
