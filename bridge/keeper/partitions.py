"""The duty that creates the daily partitions before their first reading comes, and the monthly ones of summaries.

Creating a partition locks the history in a mode that conflicts with ANALYZE. A writer of readings would wait for the
lock and delay the readings of today, so it is done here, and waits no longer than the session's lock timeout.
"""

from bridge.errors import StoreUnavailable
from bridge.keeper.port import Duty
from bridge.store.database_errors import asking, survives
from bridge.store.session import Connection
from bridge.store.tables import TABLES

EVERY_S = 60.0
# The database's clock, which is one for all programs.
_SQL = """
SELECT ensure_partition($1::text::regclass, (now() AT TIME ZONE 'UTC')::date + $5::int),
       ensure_quarter_partition($2::text::regclass, (now() AT TIME ZONE 'UTC')::date + $5::int),
       ensure_quarter_partition($3::text::regclass, (now() AT TIME ZONE 'UTC')::date + $5::int),
       ensure_quarter_partition($4::text::regclass, (now() AT TIME ZONE 'UTC')::date + $5::int)
"""


def partitions(ahead_days: int) -> Duty:
    """The duty to have the partitions of today and of `ahead_days` further days, and those of their months."""

    async def run(connection: Connection) -> bool:
        """Raises `StoreUnavailable` when a history is locked, after those of the others are made."""
        locked: StoreUnavailable | None = None
        for table in TABLES:
            summaries = (table.kind.quarter_table, table.kind.hour_table, table.kind.six_hour_table)
            try:
                with asking():
                    for day in range(ahead_days + 1):
                        await connection.fetchval(_SQL, table.history, *summaries, day)  # a transaction of its own
            except StoreUnavailable as error:
                if not survives(error):
                    raise
                locked = error
        if locked is not None:
            raise locked
        return False

    return Duty("partitions", EVERY_S, run)
