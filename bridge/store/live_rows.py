"""The live tables: one row per device. Pure."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from bridge.contract import Measure
from bridge.reading import Reading
from bridge.store.projection import Picked
from bridge.store.tables import Table


class LiveRows:
    """The latest state of each device: the last known value of each measure, as of its newest device time.

    A row that is not newer than the live one only adds measures that it lacks. One statement cannot update a row twice,
    so a device that alternates between sets of measures needs several rounds, beginning with the oldest of its picked
    rows.
    """

    name = "live"
    is_of_late = False

    def pick(self, readings: Sequence[Reading], late_before: datetime | None) -> Picked:  # noqa: ARG002
        """Pick of each device the newest reading, and the newest ones with a measure that all later readings lack."""
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
        own = [measure.column for measure in measures]
        chosen = f"SELECT {columns}, now() FROM {staged} AS staged"  # noqa: S608  # the rows are in the order of the key
        if rounds:
            chosen = (
                f"SELECT DISTINCT ON ({device}) {columns}, now() FROM {staged} AS staged "  # noqa: S608
                f"WHERE NOT EXISTS (SELECT FROM {live} AS live WHERE live.{device} = staged.{device} "
                f"AND NOT ({_has_news('staged', own)})) ORDER BY {device}, ts"
            )
        newer = "excluded.ts > live.ts"
        kept = [
            f"{c} = CASE WHEN {newer} THEN coalesce(excluded.{c}, live.{c}) ELSE coalesce(live.{c}, excluded.{c}) END"
            for c in own
        ]
        replaced = [
            f"{c} = CASE WHEN {newer} THEN excluded.{c} ELSE live.{c} END" for c in ("ts", "received_at", "extra")
        ]
        return (
            f"INSERT INTO {live} AS live ({columns}, received_at) {chosen} "
            f"ON CONFLICT ({device}) DO UPDATE SET {', '.join([*replaced, *kept])} WHERE {_has_news('excluded', own)}"
        )


def _has_news(row: str, columns: Sequence[str]) -> str:
    """Whether a row changes the live one: it is newer, or the first one with a measure."""
    first = [f"live.{column} IS NULL AND {row}.{column} IS NOT NULL" for column in columns]
    return " OR ".join([f"{row}.ts > live.ts", *first])


def _last_of_each_measure(readings: Sequence[Reading], own: Sequence[int]) -> list[int]:
    """Positions, in order, of the readings of a device that contain the last value of some measure."""
    picked: list[int] = []
    missing = set(readings[own[-1]].kind.measures)
    for n in reversed(own):
        if not picked or not missing.isdisjoint(readings[n].measures):
            picked.append(n)
            missing.difference_update(readings[n].measures)
        if not missing:
            break
    return picked[::-1]
