"""The command line's rejected messages: inspect them, and replay them after a limit was changed or a bug was fixed."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from bridge.progress import Silent, Stages
from bridge.replay import Replay, Replayed

_LIST = """
SELECT id, received_at, source, topic, device, sender, reason, detail, format, length(payload) AS bytes, replayed_at
FROM rejected_message
WHERE ($1::text IS NULL OR reason = $1) AND ($2::text IS NULL OR device = $2)
ORDER BY received_at DESC LIMIT $3
"""
_SHOW = "SELECT * FROM rejected_message WHERE id = $1"
_PENDING = """
SELECT id FROM rejected_message
WHERE replayed_at IS NULL AND (id = ANY($1::uuid[]) OR ($2::text IS NOT NULL AND reason = $2))
ORDER BY received_at
"""
_KNOWN = "SELECT id FROM rejected_message WHERE id = ANY($1::uuid[])"


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
    replay: Replay,
    ids: Sequence[UUID],
    reason: str | None,
    *,
    dry_run: bool = False,
    stages: Stages | None = None,
) -> AsyncIterator[Replayed]:
    """Replay the messages with these ids, and the pending ones with this reason, or with `dry_run` only foresee it.

    Yields the result of each. One that was replayed before is left out.
    """
    connection = await asyncpg.connect(url)
    try:
        pending = [row["id"] for row in await connection.fetch(_PENDING, list(ids), reason)]
        known = {row["id"] for row in await connection.fetch(_KNOWN, list(ids))}
        chosen = [id_ for id_ in ids if id_ not in known] + pending
        advance = (stages or Silent()).stage("rejected messages", len(chosen))
        for id_ in chosen:
            advance(1)
            yield await (replay.foresee if dry_run else replay.run)(connection, id_)
    finally:
        await connection.close()


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
