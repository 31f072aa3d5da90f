"""Stores a few readings in one round trip, with a function in the session's temporary schema. Pure.

The function is generated from the contract when a connection opens, so a new measure or kind needs no other code. Its
statements run sequentially, in the order in which every writer locks the tables, and their plans are cached. A row that
is already in the history is skipped and returned, so a duplicate causes no error in the server's log and no dead row.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from bridge.contract import KINDS
from bridge.errors import Rejected
from bridge.store.late_marks import marked_until_sql
from bridge.store.projection import Projection
from bridge.store.projections import PROJECTIONS
from bridge.store.tables import TABLES, Table, columns_of, reject_columns, reject_sql, reject_types
from bridge.store.verdict import Fresh, Identity, identity_of

_OF_PROJECTION = ("bool[]", "int")
"""Parameter types: which rows the projection picked (empty: all), and the number of rounds."""


def _parameter_types() -> list[str]:
    types: list[str] = []
    for table in TABLES:
        types += [f"{name}[]" for name in table.types]
        types += _OF_PROJECTION * len(PROJECTIONS)
    return types + [f"{name}[]" for name in reject_types]


def _table_sql(table: Table, first: int) -> str:
    """The statements for one kind, whose parameters begin at `first`."""
    columns, beyond = ", ".join(table.columns), first + len(table.columns)
    given = table.given(", ".join(f"${n}" for n in range(first, beyond)))
    times = f"${first + 1}"
    least, greatest = (f"(SELECT {extreme}(t) FROM unnest({times}) t)" for extreme in ("min", "max"))  # noqa: S608
    look_up = table.look_up_sql(given, least, greatest)
    projections = "\n".join(
        _projection_sql(projection, table, first, beyond + 2 * n) for n, projection in enumerate(PROJECTIONS)
    )
    return f"""
    IF cardinality(${first}) > 0 THEN
        INSERT INTO {table.history} ({columns}) SELECT {columns} FROM {given} ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS stored = ROW_COUNT;
        IF stored < cardinality(${first}) THEN
            RETURN QUERY SELECT '{table.kind.name}', found.position, found.same FROM ({look_up}) AS found
                WHERE found.written_by <> pg_current_xact_id()::xid;
        END IF;
        IF stored > 0 THEN
            {projections}
        END IF;
    END IF;
"""  # noqa: S608


def _projection_sql(projection: Projection, table: Table, first: int, picked: int) -> str:
    """Its statements; for one of late readings only if the oldest reading is late."""
    columns, beyond = ", ".join(table.columns), first + len(table.columns)
    given = ", ".join(f"${n}" for n in (*range(first, beyond), picked))
    staged = f"(SELECT {columns} FROM unnest({given}) AS g({columns}, picked) WHERE picked IS NOT FALSE)"  # noqa: S608
    once, again = (projection.sql(table, staged, table.kind.measures, rounds=rounds) for rounds in (False, True))
    if projection.is_of_late:
        oldest = f"(SELECT min(t) FROM unnest(${first + 1}) t)"  # noqa: S608
        return f"""
        IF {oldest} < ({marked_until_sql(table.kind)}) THEN {once}; END IF;
"""
    return f"""
        IF ${picked + 1} = 1 THEN
            {once};
        ELSE
            FOR pass IN 1..${picked + 1} LOOP {again}; END LOOP;
        END IF;
"""


def _make_sql() -> str:
    first, parts = 1, []
    for table in TABLES:
        parts.append(_table_sql(table, first))
        first += len(table.columns) + len(_OF_PROJECTION) * len(PROJECTIONS)
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.store_few({", ".join(_parameter_types())})
RETURNS TABLE (kind text, "position" int, same boolean) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    stored bigint;
BEGIN
    {"".join(parts)}
    IF cardinality(${first}) > 0 THEN
        PERFORM {reject_sql(first)};
    END IF;
END $$
"""


MAKE_SQL = _make_sql()
CALL_SQL = f"SELECT * FROM pg_temp.store_few({', '.join(f'${n}' for n in range(1, len(_parameter_types()) + 1))})"  # noqa: S608
"""Returns, for each reading whose identity was already in the history: its kind, its position (from 1) among those of
its kind, and whether all its values equal the stored ones."""


def parameters(fresh: Fresh, rejects: Sequence[Rejected], source: str) -> list[Any]:
    """The parameters of the call: readings of each kind in the order of the key, each identity once, and rejects."""
    parameters: list[Any] = []
    for table in TABLES:
        readings = fresh[table.kind]
        parameters += columns_of(table, readings)
        for projection in PROJECTIONS:
            positions, rounds = projection.pick(readings, None)
            parameters += [_flags(positions, len(readings)), rounds]
    return parameters + reject_columns(rejects, source)


def _flags(positions: Sequence[int], count: int) -> Sequence[bool]:
    """A flag for each of `count` rows, true at these positions; empty for all."""
    if len(positions) == count:
        return ()
    picked = set(positions)
    return [n in picked for n in range(count)]


def repeated(fresh: Fresh, found: Iterable[tuple[Any, ...]]) -> dict[Identity, bool]:
    """The result of the call: identities that were in the history, and whether their values are equal."""
    kinds = {kind.name: kind for kind in KINDS}
    return {identity_of(fresh[kinds[name]][position - 1]): same for name, position, same in found}
