"""What a transaction writes beside the history: projections of its new rows, each fed the same way on every path.

A projection picks the readings that concern it and says in SQL what becomes of them. Both ways of storing a batch
(COPY, and the one call for a few readings) hand it exactly the rows that it picked, as a FROM item with the table's
columns, after the history has them and in the same transaction. Pure.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

from bridge.contract import Measure
from bridge.reading import Reading
from bridge.store.tables import Table


class Picked(NamedTuple):
    """Which readings concern a projection, by their positions, and how many times its statement runs over them."""

    positions: list[int]
    rounds: int


class Projection(Protocol):
    """One thing that is written beside the history."""

    name: str
    """Part of the name of the temporary table through which its rows go."""

    def pick(self, readings: Sequence[Reading]) -> Picked:
        """What concerns it of readings that are of one kind, in the order of device and time."""
        ...

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:
        """The statement that takes the picked rows from the FROM item `staged`. Locks rows in the order of the key.

        None of the rows has another measure than these. With `rounds` it is run several times over the same rows and
        takes of each device the next one each time.
        """
        ...


class LiveRows:
    """The latest state of each device: the last known value of each measure, as of its newest device time.

    A row that is not newer than the live one changes nothing. One statement cannot touch a row twice, so a device
    that sends different measures in turn takes several rounds, the oldest of its picked rows first.
    """

    name = "live"

    def pick(self, readings: Sequence[Reading]) -> Picked:
        """Of each device the newest reading, and the newest that has a measure which all after it lack."""
        newest = {reading[0]: n for n, reading in enumerate(readings)}
        if len(newest) == len(readings) or len({type(reading) for reading in readings}) <= 1:
            return Picked(list(newest.values()), 1)
        positions: list[int] = []
        rounds = 1
        for _, own in groupby(range(len(readings)), key=lambda n: readings[n][0]):
            picked = _last_of_each_measure(readings, list(own))
            positions += picked
            rounds = max(rounds, len(picked))
        return Picked(positions, rounds)

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:
        columns, device, live = ", ".join(table.columns_with(measures)), table.device_column, table.live
        chosen = f"SELECT {columns}, now() FROM {staged} AS staged"  # noqa: S608  # they lie in the order of the key
        if rounds:
            chosen = (
                f"SELECT DISTINCT ON ({device}) {columns}, now() FROM {staged} AS staged "  # noqa: S608
                f"WHERE NOT EXISTS (SELECT FROM {live} l WHERE l.{device} = staged.{device} AND l.ts >= staged.ts) "
                f"ORDER BY {device}, ts"
            )
        kept = [f"{c} = coalesce(excluded.{c}, live.{c})" for c in (measure.column for measure in measures)]
        updated = ", ".join(["ts = excluded.ts", "received_at = excluded.received_at", *kept, "extra = excluded.extra"])
        return (
            f"INSERT INTO {live} AS live ({columns}, received_at) {chosen} "
            f"ON CONFLICT ({device}) DO UPDATE SET {updated} WHERE excluded.ts > live.ts"
        )


def _last_of_each_measure(readings: Sequence[Reading], own: Sequence[int]) -> list[int]:
    """Positions, in order, of the readings of a device that still say something when all of them are known."""
    picked: list[int] = []
    missing = set(readings[own[-1]].kind.measures)
    for n in reversed(own):
        if not picked or not missing.isdisjoint(readings[n].measures):
            picked.append(n)
            missing.difference_update(readings[n].measures)
        if not missing:
            break
    return picked[::-1]


PROJECTIONS: tuple[Projection, ...] = (LiveRows(),)
"""In the order in which they are written, after the history of the same kind."""
