"""The duty that makes the tables of rejects of the next days, and deletes old rejects."""

from bridge.keeper.port import Duty
from bridge.store.database_errors import asking
from bridge.store.session import Connection

EVERY_S = 600.0
_ENSURE = "SELECT ensure_reject_day((now() AT TIME ZONE 'UTC')::date + $1::int)"
_FORGET = "SELECT forget_rejects($1)"


def rejects(ahead_days: int, kept_days: int) -> Duty:
    """The duty to have the tables of today and of `ahead_days` further days, and none older than `kept_days`."""

    async def run(connection: Connection) -> bool:
        with asking():
            for day in range(ahead_days + 1):
                await connection.fetchval(_ENSURE, day)
            return bool(await connection.fetchval(_FORGET, kept_days))

    return Duty("rejects", EVERY_S, run)
