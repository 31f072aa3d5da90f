"""Changes of assignments. A row of `meter_assignment` is valid until the meter's next row: periods cannot overlap.

An end is a row without a vehicle at the time of the end, unless a row begins there already. The caller checks for
conflicts first: a write removes or replaces assignments to other vehicles. Decision 0015 has the rules.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import asyncpg

from api.database import Connection


class Period(NamedTuple):
    """A meter feeds a vehicle, or none, from `start` up to `end`; without an end until its next assignment."""

    meter: str
    start: datetime
    end: datetime | None
    vehicle: str | None


class Conflict(NamedTuple):
    """An assignment that the period with the index `period` would replace, remove or cut.

    It begins in the period, and `end` is null; or it begins before the period, and `end` is after the period's begin.
    """

    period: int
    meter: str
    start: datetime
    vehicle: str
    end: datetime | None

    def as_json(self) -> dict[str, str]:
        """The assignment, for the audit log."""
        end = {} if self.end is None else {"to": self.end.isoformat()}
        return {"meterId": self.meter, "from": self.start.isoformat(), **end, "vehicleId": self.vehicle}


class Changes(NamedTuple):
    """How many rows a write has inserted for periods, changed, and moved or set as ends."""

    created: int
    changed: int
    ends: int


# Writers for one meter are serialized, so that none checks for conflicts while another one writes. An import excludes
# all other writers: a lock for each of ten thousand meters would exceed the server's lock table.
_REGISTER = 7380397151
_LOCK_METER = f"SELECT pg_advisory_xact_lock_shared({_REGISTER}), pg_advisory_xact_lock(738039715, hashtext($1))"
_LOCK_ALL = f"SELECT pg_advisory_xact_lock({_REGISTER})"

# The parameters are arrays with one element per period: $1 meter, $2 begin, $3 vehicle, $4 the end of the time that the
# period covers, $5 the instant at which an end is to be written. $4 and $5 may be null.
_ARRAYS = "$1::text[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::timestamptz[]"
_COLUMNS = "meter_id, valid_from, vehicle_id, upto, ends"
_PERIODS = f"unnest({_ARRAYS}) WITH ORDINALITY AS p ({_COLUMNS}, n)"
_CONFLICTS = f"""
SELECT p.n - 1 AS period, a.meter_id, a.valid_from, a.vehicle_id, NULL::timestamptz AS until
FROM {_PERIODS} JOIN meter_assignment a
  ON a.meter_id = p.meter_id AND a.valid_from >= p.valid_from
 AND a.valid_from <= coalesce(p.upto - interval '1 microsecond', p.valid_from)
WHERE a.vehicle_id IS NOT NULL AND (a.valid_from > p.valid_from OR a.vehicle_id IS DISTINCT FROM p.vehicle_id)
UNION ALL
SELECT p.n - 1, a.meter_id, a.valid_from, a.vehicle_id, e.valid_from
FROM {_PERIODS}
CROSS JOIN LATERAL (SELECT * FROM meter_assignment b WHERE b.meter_id = p.meter_id AND b.valid_from <= p.valid_from
                    ORDER BY b.valid_from DESC LIMIT 1) a
CROSS JOIN LATERAL (SELECT * FROM meter_assignment b WHERE b.meter_id = p.meter_id AND b.valid_from > p.valid_from
                    ORDER BY b.valid_from LIMIT 1) e
WHERE a.valid_from < p.valid_from AND a.vehicle_id IS NOT NULL AND p.upto IS NOT NULL
  AND (a.vehicle_id <> p.vehicle_id OR p.upto < e.valid_from)
ORDER BY 1, 3
"""  # noqa: S608
# An assignment that an end cuts continues after that end. $6 are the vehicles of those that begin before the period.
_SET_ENDS = f"""
INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id)
SELECT p.meter_id, p.ends,
       nullif(coalesce(p.continued,
                       (SELECT a.vehicle_id FROM meter_assignment a
                        WHERE a.meter_id = p.meter_id AND a.valid_from > p.valid_from AND a.valid_from < p.ends
                        ORDER BY a.valid_from DESC LIMIT 1)), p.vehicle_id)
FROM unnest({_ARRAYS}, $6::text[]) WITH ORDINALITY AS p ({_COLUMNS}, continued, n) WHERE p.ends IS NOT NULL
ON CONFLICT (meter_id, valid_from) DO NOTHING
RETURNING 1
"""  # noqa: S608
_CLEAR = f"""
DELETE FROM meter_assignment a USING {_PERIODS}
WHERE a.meter_id = p.meter_id AND a.valid_from > p.valid_from AND a.valid_from < p.upto
RETURNING 1
"""  # noqa: S608
_PUT = f"""
INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id)
SELECT p.meter_id, p.valid_from, p.vehicle_id FROM {_PERIODS}
ON CONFLICT (meter_id, valid_from) DO UPDATE SET vehicle_id = excluded.vehicle_id, assigned_at = now()
WHERE meter_assignment.vehicle_id IS DISTINCT FROM excluded.vehicle_id
RETURNING (xmax = 0) AS created
"""  # noqa: S608
_OPEN = """
DELETE FROM meter_assignment a
WHERE a.meter_id = $1 AND a.valid_from > $2 AND a.vehicle_id IS NULL AND NOT EXISTS (
    SELECT FROM meter_assignment v
    WHERE v.meter_id = $1 AND v.valid_from > $2 AND v.valid_from < a.valid_from AND v.vehicle_id IS NOT NULL)
RETURNING 1
"""


class Plan:
    """Periods, at most one for a meter and begin, in the form of the statements' parameters.

    A period without an end does not change the meter's later assignments. One whose end is at or after the begin of
    the meter's next period of the same plan ends there.
    """

    def __init__(self, periods: Sequence[Period]) -> None:
        upto: list[datetime | None] = [period.end for period in periods]
        ends = list(upto)
        order = sorted(range(len(periods)), key=lambda n: periods[n][:2])
        for n, following in pairwise(order):
            end, begin = periods[n].end, periods[following].start
            if end is not None and periods[n].meter == periods[following].meter and begin <= end:
                upto[n], ends[n] = begin, None
        meters, starts, _, vehicles = zip(*periods, strict=True) if periods else ((), (), (), ())
        self._arguments = (meters, starts, vehicles, upto, ends)

    async def conflicts(self, c: Connection) -> list[Conflict]:
        """The assignments of vehicles that would be replaced, removed or cut.

        One that begins before a period is ended by it without a conflict if it is the meter's last, or if the period
        has no end of its own, or if the plan itself moves its end.
        """
        meters, starts, *_ = self._arguments
        planned = set(zip(meters, starts, strict=True))
        found = [Conflict(*row.values()) for row in await c.fetch(_CONFLICTS, *self._arguments)]
        return [each for each in found if each.end is None or (each.meter, each.start) not in planned]

    async def write(self, c: Connection, conflicts: Sequence[Conflict]) -> Changes:
        """Write the periods regardless of these conflicts. What an end cuts begins again at that end."""
        ends_at = self._arguments[-1]
        continued: list[str | None] = [None] * len(ends_at)
        for each in conflicts:
            end = ends_at[each.period]
            if each.end is not None and end is not None and end < each.end:
                continued[each.period] = each.vehicle
        ends = len(await c.fetch(_SET_ENDS, *self._arguments, continued))
        ends += len(await c.fetch(_CLEAR, *self._arguments))
        created = [row["created"] for row in await c.fetch(_PUT, *self._arguments)]
        return Changes(sum(created), len(created) - sum(created), ends)


async def lock_meter(c: Connection, meter: str) -> None:
    """Wait for other writers about this meter, until the transaction ends."""
    await c.execute(_LOCK_METER, meter)


async def lock_all(c: Connection) -> None:
    """Wait for all other writers, until the transaction ends."""
    await c.execute(_LOCK_ALL)


async def open_end(c: Connection, meter: str, start: datetime) -> bool:
    """Remove the end of an assignment unless it is the begin of another vehicle's; return whether there was one."""
    removed: list[asyncpg.Record] = await c.fetch(_OPEN, meter, start)
    return bool(removed)
