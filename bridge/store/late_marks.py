"""The marks of the quarter hours whose summary lacks a reading. Pure.

A summary is made by the keeper when its quarter hour is over. A reading that is stored later marks the quarter hour, in
the same transaction, and until the keeper has made the summary again it is not used.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bridge.contract import Kind, Measure
from bridge.reading import Reading
from bridge.store.projection import Picked
from bridge.store.tables import Table

QUARTER = timedelta(minutes=15)
QUARTER_SQL = "date_bin('15 minutes', ts, '1970-01-01 00:00+00')"
"""The begin of the quarter hour of `ts`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def marked_until_sql(kind: Kind) -> str:
    """Select the instant before which a reading of the kind is late. It must run after the readings are inserted.

    A transaction that has not seen the keeper move the instant has inserted its readings before, and the keeper waits
    for its end. The instant is never infinite, which asyncpg would not decode.
    """
    return f"SELECT greatest(marked_until, '0001-01-02 00:00+00') FROM quarter_mark WHERE kind = '{kind.name}'"  # noqa: S608


class LateMarks:
    """One mark for each device and quarter hour of the late readings of a batch."""

    name = "late"
    is_of_late = True

    def pick(self, readings: Sequence[Reading], late_before: datetime | None) -> Picked:
        """Pick one late reading of each device and quarter hour; all readings if it is not known which are late."""
        if late_before is None:
            return Picked(list(range(len(readings))), 1)
        late = {
            (reading[0], (reading[1] - _EPOCH) // QUARTER): n
            for n, reading in enumerate(readings)
            if reading[1] < late_before
        }
        return Picked(list(late.values()), 1)

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:  # noqa: ARG002
        device = table.device_column
        return (
            f"INSERT INTO {table.kind.dirty_table} ({device}, bucket) SELECT DISTINCT {device}, {QUARTER_SQL} "  # noqa: S608
            f"FROM {staged} AS staged WHERE ts < ({marked_until_sql(table.kind)})"
        )
