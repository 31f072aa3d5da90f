"""The notifications that are still to be delivered, in the database.

A notification is claimed for some seconds before it is sent, and marked after its receiver has it. If the process ends
in between, the claim lapses and it is sent again: every notification is delivered at least once, and several keepers
never send the same one at the same time. Those of one alarm are sent in their order.
"""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, TypeAlias

import asyncpg

from bridge.alarms.notification import COLUMNS, Notification
from bridge.store.database_errors import asking

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_MOST_ATTEMPTS = 100
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 3600.0
_KEPT = timedelta(days=30)
_PENDING = "delivered_at IS NULL AND failed_at IS NULL"
_STATE = f"""
SELECT target, count(*) AS pending, extract(epoch FROM now() - min(created_at))::float8 AS lag_s,
       bool_or(next_at <= now()) AS is_due
FROM alarm_delivery WHERE {_PENDING} GROUP BY target
"""  # noqa: S608
_CLAIM = f"""
WITH due AS (
    SELECT d.id FROM alarm_delivery d WHERE target = $1 AND {_PENDING} AND next_at <= now() AND NOT EXISTS (
        SELECT FROM alarm_delivery e WHERE e.alarm_id = d.alarm_id AND e.target = d.target AND e.id < d.id
        AND e.delivered_at IS NULL AND e.failed_at IS NULL
    ) ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE alarm_delivery d SET attempts = attempts + 1, next_at = now() + $3::interval FROM due WHERE due.id = d.id
    RETURNING d.id, d.alarm_id, d.event, d.attempts
)
SELECT c.id AS delivery, c.event, c.attempts, {", ".join(f"a.{column}" for column in COLUMNS)}
FROM claimed c JOIN alarm a ON a.id = c.alarm_id ORDER BY c.id
"""  # noqa: S608
_DELIVERED = "UPDATE alarm_delivery SET delivered_at = now(), error = NULL WHERE id = ANY($1)"
_RETRY = f"""
UPDATE alarm_delivery SET next_at = now() + $2::interval, error = $3,
       failed_at = CASE WHEN attempts >= {_MOST_ATTEMPTS} THEN now() END
WHERE id = $1 AND delivered_at IS NULL RETURNING failed_at IS NOT NULL
"""  # noqa: S608
_EXPIRE = f"UPDATE alarm_delivery SET failed_at = now() WHERE {_PENDING} AND created_at < now() - $1::interval"  # noqa: S608
_FORGET = "DELETE FROM alarm_delivery WHERE coalesce(delivered_at, failed_at) < now() - $1::interval"


class Waiting(NamedTuple):
    """What waits for one target."""

    target: str
    pending: int
    lag_s: float
    is_due: bool


class Outbox:
    """The table of deliveries. Every method raises `StoreUnavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def waiting(self) -> list[Waiting]:
        """What is still to be delivered, by target."""
        with asking():
            return [Waiting(*row) for row in await self._pool.fetch(_STATE)]

    async def claim(self, target: str, most: int, lease_s: float) -> list[Notification]:
        """Up to `most` notifications that are due; no other process gets them for `lease_s`."""
        with asking():
            rows = await self._pool.fetch(_CLAIM, target, most, timedelta(seconds=lease_s))
        return [Notification(row["delivery"], row["event"], row["attempts"], dict(row)) for row in rows]

    async def delivered(self, notifications: Sequence[Notification]) -> None:
        """Their receiver has them."""
        with asking():
            await self._pool.execute(_DELIVERED, [n.delivery for n in notifications])

    async def retry(self, notification: Notification, error: str) -> bool:
        """Send it again later, unless there were too many attempts; whether it is given up."""
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(notification.attempts - 1, 20))
        pause = timedelta(seconds=pause_s * random.uniform(0.5, 1.0))
        with asking():
            return bool(await self._pool.fetchval(_RETRY, notification.delivery, pause, error[:500]))

    async def expire(self, age: timedelta) -> int:
        """Give up what is older, and delete what ended a month ago. Returns how many were given up."""
        with asking():
            status = await self._pool.execute(_EXPIRE, age)
            await self._pool.execute(_FORGET, _KEPT)
        return int(status.split()[-1])
