"""The duty that makes the summaries of quarter hours, of those that are over and of those that lack a late reading.

Closing quarter hours takes three steps, so that no reading is missed: the mark moves ahead, and readings before it are
marked dirty from then on; every transaction that may not have seen this ends; the summaries are made from what is
stored. Each step may be the last one of this process: the next one continues from the marks. Summaries are replaced,
never added to.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from bridge.contract import KINDS, Kind
from bridge.errors import StoreUnavailable
from bridge.keeper.chunks import by_devices, ensure_months, paced
from bridge.keeper.hours import LEVELS, Hours
from bridge.keeper.pace import Pace
from bridge.keeper.port import Duty, Figure
from bridge.keeper.quarter_sql import clean_sql, close_sql
from bridge.keeper.writers import Writers
from bridge.status import StatusColumn
from bridge.store.database_errors import asking, survives
from bridge.store.session import Connection

EVERY_S = 15.0
_QUARTER = timedelta(minutes=15)
_MOST_MARKS = 2_000
"""Marks that are cleaned in one transaction."""
_MOST_DEVICE_QUARTERS = 20_000
"""Devices x quarter hours that are summarized in one transaction."""
_MOST_QUARTERS = 96
"""Quarter hours that are closed in one run."""
_MOST_COUNTED = 100_000
"""Marks that are counted for the metrics; there may be more."""
_TURN_S = 1.0
"""How long one kind is closed or cleaned in one run, if there is so much to do."""
_ALARMING_S = 3600.0
_STUCK_S = 600.0
_MARKS = """
SELECT greatest(marked_until, '0001-01-02 00:00+00') AS marked_until,
       greatest(closed_until, '0001-01-02 00:00+00') AS closed_until,
       now() - $2::interval AS now,
       date_bin('15 minutes', now() - $2::interval, '1970-01-01 00:00+00') AS over
FROM quarter_mark WHERE kind = $1
"""
_MARK = "UPDATE quarter_mark SET marked_until = greatest(marked_until, $2) WHERE kind = $1"
# Hours whose quarter hours were made again, because somebody has put back the mark, are composed again.
_CLOSED = """
UPDATE quarter_mark SET closed_until = $2, composed_until = least(composed_until, date_trunc('hour', $3, 'UTC'))
WHERE kind = $1
"""
# Of the first partition, of whose name the day is a part.
_FIRST_DAY = """
SELECT to_date(right(min(c.relname), 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC'
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = $1::text::regclass
"""
_DIRTY = "SELECT ctid, {device} AS device, bucket FROM {dirty} WHERE bucket < $1 LIMIT $2"
_BACKLOG = "SELECT count(*) FROM (SELECT FROM {dirty} LIMIT $1) AS d"
_Step = Callable[[Connection, Kind], Awaitable[bool]]


class _State:
    """What this process knows about one kind."""

    def __init__(self, kind: Kind, timeout_s: float) -> None:
        self.writers = Writers(kind, timeout_s)
        self.hours = [Hours(kind, level) for level in LEVELS]
        self.step = Pace(_MOST_QUARTERS, 1)
        self.chunk = Pace(_MOST_DEVICE_QUARTERS, _MOST_DEVICE_QUARTERS // 4)
        self.marks = Pace(_MOST_MARKS, _MOST_MARKS // 4)
        self.dirty = 0
        self.progressed_at: float | None = None
        self._behind_s = 0.0
        self._seen_at = 0.0

    def see(self, behind: timedelta) -> None:
        """Note how long ago, without the delay, the last summarized quarter hour ended."""
        self._behind_s, self._seen_at = behind.total_seconds(), time.monotonic()
        if self.progressed_at is None:
            self.progressed_at = self._seen_at

    @property
    def behind_s(self) -> float:
        """Of whole quarter hours, as of now."""
        if self._seen_at == 0.0:
            return 0.0
        quarter = _QUARTER.total_seconds()
        return max(0.0, (self._behind_s + time.monotonic() - self._seen_at) // quarter * quarter)

    @property
    def is_stuck(self) -> bool:
        """Whether it is far behind and does not catch up either."""
        progressed_at = self.progressed_at
        is_idle = progressed_at is not None and time.monotonic() - progressed_at > _STUCK_S
        return is_idle and self.behind_s > _ALARMING_S


class Quarters:
    """Makes summaries. One instance lives as long as the process; its figures are those of its last run."""

    def __init__(self, delay_s: float, timeout_s: float) -> None:
        """Quarter hours are closed `delay_s` after their end; a writer's transaction is awaited up to `timeout_s`."""
        self._delay = timedelta(seconds=delay_s)
        self._states = {kind: _State(kind, timeout_s) for kind in KINDS}

    @property
    def duty(self) -> Duty:
        """The duty, and what it tells about itself."""
        figures = (
            Figure(
                "fleet_keeper_quarters_behind_seconds",
                "behindSeconds",
                "Time from the end of the last summarized quarter hour to the end of the last one that is over.",
                lambda kind: self._states[kind].behind_s,
            ),
            Figure(
                "fleet_keeper_dirty_quarters",
                "dirty",
                f"Marks of quarter hours whose summary lacks a late reading, counted up to {_MOST_COUNTED:,}.",
                lambda kind: float(self._states[kind].dirty),
            ),
        )
        return Duty("quarters", EVERY_S, self.run, figures, self.problem, self._status)

    def _status(self) -> dict[StatusColumn, float | None]:
        """Of both kinds, for the row of this process."""
        states = self._states.values()
        behind_s, dirty = max(state.behind_s for state in states), sum(state.dirty for state in states)
        return {"quarters_behind_s": behind_s, "dirty_quarters": float(dirty)}

    def problem(self) -> str | None:
        """Why an operator must look: a kind is an hour behind, and nothing was summarized for ten minutes."""
        stuck = [kind.name for kind, state in self._states.items() if state.is_stuck]
        return f"no quarter hour of {' and '.join(stuck)} is summarized" if stuck else None

    async def run(self, connection: Connection) -> bool:
        """Close, compose and clean for each kind, each for about a second; a failure does not stop the others.

        Raises the first error: `StoreUnavailable` when a writer's transaction does not end.
        """
        more, errors = False, []
        for kind in KINDS:
            for step in (self._close, self._compose, self._clean):
                try:
                    with asking():
                        more |= await self._take_turn(step, connection, kind)
                except Exception as error:
                    if isinstance(error, StoreUnavailable) and not survives(error):
                        raise
                    errors.append(error)
        if errors:
            raise errors[0]
        return more

    async def _take_turn(self, step: _Step, connection: Connection, kind: Kind) -> bool:
        began = time.monotonic()
        while more := await step(connection, kind):
            if time.monotonic() > began + _TURN_S:
                break
        return more

    async def _close(self, connection: Connection, kind: Kind) -> bool:
        """Summarize the next quarter hours that are over; whether there are more, or transactions to wait for."""
        state = self._states[kind]
        marked, closed, now, over = await connection.fetchrow(_MARKS, kind.name, self._delay)  # type: ignore[misc]
        first = await connection.fetchval(_FIRST_DAY, kind.history_table)
        state.see(now - max(first or now, closed))
        if marked <= closed:
            if over <= closed:
                return False
            await connection.execute(_MARK, kind.name, marked := over)
        if not await state.writers.ended(connection, marked):
            return True
        # Only now: a reading that comes before this day from now on has a mark.
        first = await connection.fetchval(_FIRST_DAY, kind.history_table)
        begin = marked if first is None else max(first, closed)
        until = min(marked, begin + state.step.size * _QUARTER)
        with paced(state.step):
            await ensure_months(connection, kind.quarter_table, begin, until)
            await by_devices(connection, kind, close_sql(kind), begin, until, _QUARTER, state.chunk)
        await connection.execute(_CLOSED, kind.name, until, begin)
        state.see(now - until)
        state.progressed_at = time.monotonic()
        return bool(until < over)

    async def _compose(self, connection: Connection, kind: Kind) -> bool:
        """Compose the next hours of quarter hours that are closed; whether there are more."""
        more = [await hours.compose(connection) for hours in self._states[kind].hours]
        return any(more)

    async def _clean(self, connection: Connection, kind: Kind) -> bool:
        """Make summaries again that lack a late reading; whether there are more."""
        state = self._states[kind]
        _, closed, _, _ = await connection.fetchrow(_MARKS, kind.name, self._delay)  # type: ignore[misc]
        state.dirty = await connection.fetchval(_BACKLOG.format(dirty=kind.dirty_table), _MOST_COUNTED)
        wanted = state.marks.size
        sql = _DIRTY.format(device=kind.id_column, dirty=kind.dirty_table)
        marks = await connection.fetch(sql, closed, wanted)
        if marks:
            with paced(state.marks):
                await self._make_again(connection, kind, marks)
        return len(marks) == wanted

    async def _make_again(self, connection: Connection, kind: Kind, marks: Sequence[Any]) -> None:
        """Make the quarter hours with these marks again, and the hours that have a part in them."""
        state, buckets = self._states[kind], [row["bucket"] for row in marks]
        for month in {bucket.replace(day=1, hour=0, minute=0) for bucket in buckets}:
            for table in (kind.quarter_table, *(level.table(kind) for level in LEVELS)):
                await ensure_months(connection, table, month, month + _QUARTER)
        ctids = [row["ctid"] for row in marks]
        async with connection.transaction():
            cleaned = await connection.fetchval(clean_sql(kind), min(buckets), max(buckets) + _QUARTER, ctids)
            for hours in state.hours:
                await hours.recompose(connection, ((row["device"], row["bucket"]) for row in marks))
        state.dirty -= cleaned
