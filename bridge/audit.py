"""The audit log: one row for each administrative action, in the same transaction as the action."""

import getpass
import json
from typing import Any, Literal

import asyncpg

Action = Literal[
    "key.create",
    "key.revoke",
    "key.rotate",
    "device.put",
    "device.patch",
    "device.delete",
    "device.import",
    "assignment.put",
    "assignment.patch",
    "assignment.delete",
    "assignment.import",
    "rejected.replay",
    "alarm.acknowledge",
    "alarm_rule.put",
    "alarm_rule.delete",
    "webhook.create",
    "webhook.delete",
]

_RECORD = "INSERT INTO audit_log (actor, action, subject, detail) VALUES ($1, $2, $3, $4::jsonb)"


def operator() -> str:
    """The actor of a command line: the name of the operating system's user."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user id without a name
        return "cli:unknown"


async def record(
    connection: "asyncpg.Connection[asyncpg.Record]", actor: str, action: Action, subject: str, **detail: Any
) -> None:
    """Record the action on `connection`, so that the record commits or fails with the action."""
    await connection.execute(_RECORD, actor, action, subject, json.dumps(detail, default=str))
