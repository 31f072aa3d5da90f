"""Rows of the live and history tables in responses, with the names of the contract.

The JSON text is assembled directly, so that `extra` is passed on unchanged: its numbers would lose digits as Python's
floats.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from bridge.contract import KINDS
from bridge.reading import format_timestamp
from bridge.store.tables import TABLE_OF, Table

_NAMES = {"ts": "timestamp", "received_at": "receivedAt", "extra": "extra"}
_NAMES |= {"silent": "silent", "age_seconds": "ageSeconds"}
_NAMES |= {kind.id_column: kind.id_field for kind in KINDS}
_NAMES |= {measure.column: measure.name for kind in KINDS for measure in kind.measures}
_KEYS = {column: f'"{name}":' for column, name in _NAMES.items()}
_NULLS = {column: f"{key}null" for column, key in _KEYS.items()}


def columns(table: Table) -> list[str]:
    """The columns of a reading in the order of its payload, then the time of arrival and the unknown fields."""
    return [table.device_column, *table.measure_columns, "ts", "received_at", "extra"]


COLUMNS = {kind: ", ".join(columns(table)) for kind, table in TABLE_OF.items()}
"""Of each kind, for a SELECT."""


LIVE_COLUMNS = ("silent", "age_seconds")
"""What a live row has beside the columns of a reading. They are last, because they change without another reading."""


def page_json(rows: Sequence[asyncpg.Record], next_cursor: str | None, **members: str) -> str:
    """A page: `{"items": [...], "nextCursor": ...}` and other members."""
    more = "".join(f",{json.dumps(name)}:{json.dumps(text)}" for name, text in members.items())
    return f'{{"items":[{",".join(map(row_json, rows))}],"nextCursor":{json.dumps(next_cursor)}{more}}}'


def row_json(row: asyncpg.Record) -> str:
    """One row as a JSON object; a measure that was not reported is null."""
    return "{" + members_json(row.items()) + "}"


def members_json(cells: Iterable[tuple[str, Any]]) -> str:
    """Columns with their values as members of a JSON object."""
    # The stream renders every row that has changed in the last second, and most of its measures are null.
    return ",".join(
        [
            _NULLS[column]
            if value is None
            else f"{_KEYS[column]}{value!r}"  # as `json` does
            if type(value) is float
            else f"{_KEYS[column]}{_json(column, value)}"
            for column, value in cells
        ]
    )


def _json(column: str, value: Any) -> str:
    if column == "extra":
        return str(value)
    return json.dumps(value) if isinstance(value, str | bool) else f'"{format_timestamp(value)}"'


def csv_header(table: Table, more: Sequence[str] = ()) -> list[str]:
    """The columns of a CSV list of readings; a row of the table has their cells. `extra` is JSON."""
    return [_NAMES[column] for column in [*columns(table), *more]]
