"""Work for all devices and some time, done in chunks of devices, so that no transaction is long."""

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from bridge.contract import Kind
from bridge.keeper.pace import Pace
from bridge.store.session import Connection

_LAST = "SELECT max(id) FROM (SELECT {device} AS id FROM {live} WHERE {device} > $1 ORDER BY 1 LIMIT $2) AS d"
_PARTITION = "SELECT ensure_quarter_partition($1::text::regclass, $2)"


async def by_devices(
    connection: Connection, kind: Kind, sql: str, begin: datetime, until: datetime, bucket: timedelta, pace: Pace
) -> None:
    """Execute a statement of $1 `begin`, $2 `until`, and the devices after $3 up to $4, until all have had their turn.

    The pace is that of devices x buckets. The devices are those of the live table: it has every device of the history.
    """
    buckets = max(1, (until - begin) // bucket)
    last_of_chunk, after = _LAST.format(device=kind.id_column, live=kind.live_table), ""
    while (
        begin < until
        and (last := await connection.fetchval(last_of_chunk, after, max(1, pace.size // buckets))) is not None
    ):
        with paced(pace):
            await connection.execute(sql, begin, until, after, last)
        after = last


async def ensure_months(connection: Connection, table: str, begin: datetime, until: datetime) -> None:
    """Make the partitions of a table of summaries for some time, unless they are there."""
    month = begin
    while month < until:
        await connection.fetchval(_PARTITION, table, month.date())
        month = (month.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0)


@contextlib.contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """Adapt the pace to what the block takes."""
    began = time.monotonic()
    try:
        yield
    except Exception:
        pace.failed()
        raise
    pace.took(time.monotonic() - began)
