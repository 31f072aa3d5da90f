"""The tables of each kind and the SQL that looks rows up, derived from the contract."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from operator import itemgetter
from typing import Any
from uuid import UUID

from bridge.contract import KINDS, Kind, Measure
from bridge.errors import Rejected
from bridge.reading import Extra, Reading, jsonb_text

Row = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """One kind's history and live table, with the same columns: device, ts, a column for each measure, extra."""

    kind: Kind

    @cached_property
    def measure_columns(self) -> list[str]:
        return [measure.column for measure in self.kind.measures]

    @cached_property
    def columns(self) -> list[str]:
        return self.columns_with(self.kind.measures)

    def columns_with(self, measures: Iterable[Measure]) -> list[str]:
        """The columns of rows with these measures only."""
        return [self.kind.id_column, "ts", *(measure.column for measure in measures), "extra"]

    @cached_property
    def types(self) -> list[str]:
        """The types of the columns."""
        return ["text", "timestamptz", *["float8"] * len(self.measure_columns), "jsonb"]

    @property
    def device_column(self) -> str:
        return self.kind.id_column

    @property
    def history(self) -> str:
        return self.kind.history_table

    @property
    def live(self) -> str:
        return self.kind.live_table

    def arrays(self, first_parameter: int = 1) -> str:
        """The columns as parameters for `unnest`."""
        return ", ".join(f"${n}::{name}[]" for n, name in enumerate(self.types, start=first_parameter))

    def look_up_sql(self, given: str, least_ts: str, greatest_ts: str) -> str:
        """Select the given rows whose identity is in the history: position (from 1), and whether all values are equal.

        `given` is a FROM item with the table's columns and `position`. The least and greatest ts let the planner prune
        partitions. ORDER BY prevents the planner from reversing the join: by outdated statistics it estimates that the
        history has no rows so late, and it would then compare every row of that time with every given row. Nothing is
        sorted, because the time is a constant there; OFFSET 0 would do the same, but Citus refuses it.
        """
        same = " AND ".join(f"h.{c} IS NOT DISTINCT FROM g.{c}" for c in self.columns[2:])
        return (
            f"SELECT g.position::int AS position, found.same, found.written_by FROM {given} "  # noqa: S608
            f"CROSS JOIN LATERAL (SELECT {same} AS same, h.xmin AS written_by FROM {self.history} h "
            f"WHERE h.{self.device_column} = g.{self.device_column} AND h.ts = g.ts "
            f"AND h.ts BETWEEN {least_ts} AND {greatest_ts} ORDER BY h.ts) AS found"
        )

    @cached_property
    def look_up_arrays_sql(self) -> str:
        """`look_up_sql` for arrays; the last two parameters are the least and greatest ts."""
        last = len(self.columns)
        return self.look_up_sql(self.given(self.arrays()), f"${last + 1}", f"${last + 2}")

    def given(self, arrays: str) -> str:
        """Arrays of the columns as a FROM item with their `position` from 1."""
        return f"unnest({arrays}) WITH ORDINALITY AS g({', '.join(self.columns)}, position)"


TABLES = tuple(map(Table, KINDS))
"""In the order in which every writer locks them, so that two writers cannot deadlock."""
TABLE_OF = {table.kind: table for table in TABLES}

identity = itemgetter(0, 1)
"""Device and ts of a reading: the order of the key."""


def row_of(reading: Reading) -> Row:
    """A reading's values as parameters in the order of the table's columns: `extra` as JSON text."""
    values = reading.values()
    measures = (values.get(measure.name) for measure in reading.kind.measures)
    return (reading[0], reading[1], *measures, _extra_text(reading[-1]))


def columns_of(table: Table, readings: Sequence[Reading]) -> list[Sequence[Any]]:
    """Transpose readings into arrays for `unnest`; a column that none of them has is an empty array.

    `unnest` pads shorter arrays with nulls.
    """
    shapes = {type(reading) for reading in readings}
    if len(shapes) != 1:
        return list(zip(*map(row_of, readings), strict=True)) if readings else [()] * len(table.columns)
    devices, times, *values, extras = zip(*readings, strict=True)
    has = dict(zip((measure.column for measure in shapes.pop().measures), values, strict=True))
    texts = list(map(_extra_text, extras)) if any(extras) else ()
    return [devices, times, *(has.get(column, ()) for column in table.measure_columns), texts]


def _extra_text(extra: Extra) -> str | None:
    return jsonb_text(extra) if extra else None


REJECT_COLUMNS = ("id", "source", "topic", "device", "reason", "detail", "payload", "format", "sender")
reject_types = ("uuid", "text", "text", "text", "text", "text", "bytea", "text", "text")


def reject_sql(first_parameter: int = 1) -> str:
    """The call that stores rejected messages, each once. The parameters are an array for each of `REJECT_COLUMNS`."""
    arrays = (f"${n}::{name}[]" for n, name in enumerate(reject_types, start=first_parameter))
    return f"store_rejects({', '.join(arrays)})"


def reject_columns(rejects: Sequence[Rejected], source: str) -> list[Sequence[Any]]:
    """Rejected messages of one source as the parameters of `reject_sql`."""
    rows = [reject_row(rejected, source) for rejected in rejects]
    return list(zip(*rows, strict=True)) if rows else [()] * len(REJECT_COLUMNS)


def reject_row(rejected: Rejected, source: str) -> Row:
    """The values of `REJECT_COLUMNS`."""
    topic = None if rejected.topic is None else _storable(rejected.topic)
    return (
        reject_id(rejected, source),
        source,
        topic,
        rejected.device,
        rejected.reason,
        _storable(rejected.detail),
        rejected.payload,
        rejected.format,
        rejected.sender,
    )


def reject_id(rejected: Rejected, source: str) -> UUID:
    """An id derived from the rejected message and its sender, so that a redelivered message is stored once."""
    parts = [source, rejected.topic or "", rejected.reason, rejected.device or ""]
    if rejected.sender is not None:
        parts.append(rejected.sender)
    digest = blake2b(rejected.payload, digest_size=16, salt=b"rejected")
    for part in parts:
        digest.update(b"\0" + part.encode("utf-8", "surrogatepass"))
    return UUID(bytes=digest.digest())


def _storable(text: str) -> str:
    """Replace the characters that PostgreSQL's text type refuses."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
