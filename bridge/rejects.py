"""Inspect rejected messages, and replay them after a limit was changed or a bug was fixed."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from bridge import audit
from bridge.delivery import Item, Store
from bridge.errors import Rejected
from bridge.formats import decode, named
from bridge.formats.port import MAX_READINGS_PER_MESSAGE, AcceptedWindow
from bridge.progress import Silent, Stages

_LIST = """
SELECT id, received_at, source, topic, device, reason, detail, format, length(payload) AS bytes, replayed_at
FROM rejected_message
WHERE ($1::text IS NULL OR reason = $1) AND ($2::text IS NULL OR device = $2)
ORDER BY received_at DESC LIMIT $3
"""
_SHOW = "SELECT * FROM rejected_message WHERE id = $1"
_PENDING = """
SELECT id, source, topic, device, format, payload, reason, detail FROM rejected_message
WHERE replayed_at IS NULL AND (id = ANY($1::uuid[]) OR ($2::text IS NOT NULL AND reason = $2))
ORDER BY received_at
"""
_KNOWN = "SELECT id FROM rejected_message WHERE id = ANY($1::uuid[])"
_MOST_SHOWN = 20
_DONE = "UPDATE rejected_message SET replayed_at = now() WHERE id = $1"


async def list_rejected(url: str, reason: str | None, device: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest rejected messages, without their payloads."""
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(_LIST, reason, device, limit)]
    finally:
        await connection.close()


async def show_rejected(url: str, id_: UUID) -> dict[str, Any] | None:
    """One rejected message with its payload; None when the id is unknown."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(_SHOW, id_)
        return dict(row) if row else None
    finally:
        await connection.close()


async def replay_rejected(
    url: str,
    store_of: Callable[[str], Store],
    window: AcceptedWindow,
    ids: Sequence[UUID],
    reason: str | None,
    *,
    even_forbidden: bool = False,
    stages: Stages | None = None,
) -> AsyncIterator[tuple[UUID, str]]:
    """Decode and write the messages again. Yields the outcome of each: `stored`, or the reason why it is not stored.

    `store_of` returns the store for a source, so that an item that is rejected again keeps its source. A message counts
    as replayed when each of its elements is in the history or stored as a separate reject. A forbidden message is a
    valid reading and would be stored although its sender was not allowed to report it: it is skipped unless
    `even_forbidden`.
    """
    connection = await asyncpg.connect(url)
    try:
        known = {row["id"] for row in await connection.fetch(_KNOWN, list(ids))}
        for id_ in ids:
            if id_ not in known:
                yield id_, "there is no rejected message with this id"
        pending = await connection.fetch(_PENDING, list(ids), reason)
        advance = (stages or Silent()).stage("rejected messages", len(pending))
        for row in pending:
            advance(1)
            if row["reason"] == "forbidden" and not even_forbidden:
                yield row["id"], f"forbidden: {row['detail']}; use --even-forbidden to store it"
                continue
            items = _decode(row, window)
            outcomes = [o for part in _parts(items) for o in await store_of(row["source"]).write(part)]
            refused = [f"{n}: {o}" for n, o in enumerate(outcomes) if isinstance(o, Rejected)]
            result = _result(len(outcomes), refused)
            async with connection.transaction():
                if not refused or len(outcomes) > 1:  # elements that are rejected again are stored as separate rejects
                    await connection.execute(_DONE, row["id"])
                subject, was = f"rejected:{row['id']}", row["reason"]
                await audit.record(connection, audit.operator(), "rejected.replay", subject, reason=was, result=result)
            yield row["id"], result
    finally:
        await connection.close()


def _result(items: int, refused: Sequence[str]) -> str:
    """The outcome of a message as text; `stored` when all of its readings are in the history."""
    reasons = "; ".join(refused[:_MOST_SHOWN])
    if not refused or items == 1:
        return reasons or "stored"
    return f"{reasons} ({items - len(refused)} of {items} stored)"


def _decode(row: asyncpg.Record, window: AcceptedWindow) -> Sequence[Item]:
    """Decode a rejected payload in its original format, without the limit on the number of readings."""
    times, payload = window.at(datetime.now(UTC)), row["payload"]
    format_ = named(row["format"])
    if format_ is None:
        detail = f"this version has no format {row['format']}"
        return [Rejected("not_a_reading", detail, payload, row["topic"], row["device"], row["format"])]
    return decode(format_, payload, row["topic"], times, most=len(payload))


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split items of a message that was too long into parts of the accepted length."""
    for start in range(0, len(items), MAX_READINGS_PER_MESSAGE):
        yield items[start : start + MAX_READINGS_PER_MESSAGE]


def as_json(row: dict[str, Any]) -> str:
    """A row as JSON; a payload in UTF-8 is shown as text, other bytes in hex."""
    shown = {key: _shown(value) for key, value in row.items()}
    return json.dumps(shown, ensure_ascii=False)


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return "\\x" + value.hex()
    return value if value is None or isinstance(value, int) else str(value)
