"""Finds readings that only the database refuses, by storing each alone, in one round trip for each kind."""

from collections.abc import Mapping
from typing import TypeAlias

import asyncpg

from bridge.contract import KINDS
from bridge.reading import Reading
from bridge.store.projections import PROJECTIONS
from bridge.store.tables import TABLE_OF, Table, row_of

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def refused(connection: Connection, readings: Mapping[int, Reading]) -> dict[int, str]:
    """The numbers of the readings that cannot be stored, with the reasons. All changes are rolled back."""
    reasons: dict[int, str] = {}
    for kind in KINDS:
        own = [(number, reading) for number, reading in readings.items() if reading.kind is kind]
        sendable: list[int] = []
        rows = []
        for number, reading in own:
            try:
                rows.append(row_of(reading))
                sendable.append(number)
            except ValueError as error:  # not valid in jsonb
                reasons[number] = str(error)
        if rows:
            found = await _try_each(connection, TABLE_OF[kind], list(zip(*rows, strict=True)))
            reasons |= {sendable[position - 1]: reason for position, reason in found.items()}
    return reasons


async def _try_each(connection: Connection, table: Table, columns: list[tuple[object, ...]]) -> dict[int, str]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(_make_sql(table))
        call = f"SELECT * FROM pg_temp.try_each({', '.join(f'${n}' for n in range(1, len(columns) + 1))})"  # noqa: S608
        return {row["position"]: row["reason"] for row in await connection.fetch(call, *columns)}
    finally:
        if not connection.is_closed():
            await transaction.rollback()


def _make_sql(table: Table) -> str:
    """A function that stores each row in a subtransaction, and returns which rows failed.

    The rows are in the order of their keys, as in `store.tables`, so that two writers do not wait for each other.
    `extra` is text here: a value that jsonb refuses would fail the whole call. The cast is in the subtransaction.
    """
    columns, types = table.columns, [*table.types[:-1], "text"]
    arrays = ", ".join(f"{name}[]" for name in types)
    given = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    values = [*(f"given.{column}" for column in columns[:-1]), "given.extra::jsonb"]
    named = ", ".join(f"{value} AS {column}" for value, column in zip(values, columns, strict=True))
    projections = "".join(
        f"{p.sql(table, f'(SELECT {named})', table.kind.measures, rounds=False)};\n" for p in PROJECTIONS
    )
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.try_each({arrays})
RETURNS TABLE ("position" bigint, reason text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given record;
BEGIN
    FOR given IN SELECT * FROM unnest({given}) WITH ORDINALITY AS g({", ".join(columns)}, "position")
                 ORDER BY {columns[0]}, {columns[1]} LOOP
        BEGIN
            INSERT INTO {table.history} ({", ".join(columns)}) VALUES ({", ".join(values)}) ON CONFLICT DO NOTHING;
            {projections}
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
            RETURN QUERY SELECT given."position", SQLERRM;
        END;
    END LOOP;
END $$
"""  # noqa: S608
