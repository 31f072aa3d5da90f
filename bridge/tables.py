"""How each kind of reading lies in its tables: columns, rows and the SQL that asks for them."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from bridge.copy_format import meter_tuple, vehicle_tuple
from bridge.errors import Rejected
from bridge.reading import Kind, Reading, jsonb_text

Row = tuple[Any, ...]
T = TypeVar("T")


class Table(NamedTuple):
    """One kind's history and live table, with the same columns: device, ts, the values, extra."""

    kind: Kind
    history: str
    live: str
    device_column: str
    value_columns: tuple[str, str] | tuple[str, str, str]
    copy_tuple: Callable[[Any], bytes]
    """A reading, whose values lie as `columns` do, in the form of a binary COPY."""

    @property
    def columns(self) -> list[str]:
        return [self.device_column, "ts", *self.value_columns, "extra"]

    @property
    def staged(self) -> str:
        """The connection's own table, empty outside of a transaction, through which the live rows go."""
        return f"staged_{self.kind}"

    @property
    def stage_sql(self) -> str:
        """Make that table. COPY into it costs the sender a third of what arrays for `unnest` do."""
        return (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.staged} ON COMMIT DELETE ROWS AS "  # noqa: S608
            f"SELECT {', '.join(self.columns)} FROM {self.live} WITH NO DATA"
        )

    def _arrays(self, first_parameter: int = 1) -> str:
        """The columns as parameters for `unnest`."""
        values = len(self.value_columns)
        types = ["text", "timestamptz", *["float8"] * values, "jsonb"]
        return ", ".join(f"${n}::{name}[]" for n, name in enumerate(types, start=first_parameter))

    @property
    def look_up_sql(self) -> str:
        """Which of the given rows have their identity in the history: position (from 1), and whether all is equal.

        The last two parameters are the least and greatest ts: they let the planner prune the partitions. OFFSET 0 keeps
        it from turning the join round: statistics that are older than the rows promise that there is none so late, and
        then it would compare every row of that time with every given one.
        """
        columns, next_parameter = self.columns, len(self.columns) + 1
        same = " AND ".join(f"h.{c} IS NOT DISTINCT FROM g.{c}" for c in columns[2:])
        return (
            f"SELECT g.position, found.same FROM unnest({self._arrays()}) WITH ORDINALITY "  # noqa: S608
            f"AS g({', '.join(columns)}, position) CROSS JOIN LATERAL (SELECT {same} AS same FROM {self.history} h "
            f"WHERE h.{self.device_column} = g.{self.device_column} AND h.ts = g.ts "
            f"AND h.ts BETWEEN ${next_parameter} AND ${next_parameter + 1} OFFSET 0) AS found"
        )

    @property
    def upsert_live_sql(self) -> str:
        """Make the staged rows, one a device, the live ones where they are newer by device time."""
        return self._upsert_live(f"SELECT {', '.join(self.columns)}, now() FROM {self.staged} ")  # noqa: S608

    def _upsert_live(self, select: str) -> str:
        columns = self.columns
        updated = ", ".join(f"{c} = excluded.{c}" for c in ["received_at", *columns[1:]])
        return (
            f"INSERT INTO {self.live} AS live ({', '.join(columns)}, received_at) {select}"
            f"ON CONFLICT ({self.device_column}) DO UPDATE SET {updated} WHERE excluded.ts > live.ts"
        )

    def at_once_sql(self, first_parameter: int, after: str | None) -> str:
        """What stores a few readings, as two parts of a WITH; they begin when the part `after` is done."""
        columns, device = ", ".join(self.columns), self.device_column
        given = f"FROM unnest({self._arrays(first_parameter)}) AS g({columns})"
        waits = f"WHERE (SELECT count(*) FROM {after}) >= 0" if after else ""  # noqa: S608
        newest = (
            f"SELECT DISTINCT ON ({device}) {columns}, now() {given} "  # noqa: S608
            f"WHERE (SELECT count(*) FROM {self.kind}_history) >= 0 ORDER BY {device}, ts DESC "
        )
        return (
            f"{self.kind}_history AS (INSERT INTO {self.history} ({columns}) SELECT {columns} {given} {waits} "
            f"RETURNING 1), {self.kind}_live AS ({self._upsert_live(newest)} RETURNING 1)"
        )


VEHICLE = Table(
    "vehicle",
    "vehicle_telemetry_history",
    "vehicle_live_status",
    "vehicle_id",
    ("soc", "kwh_delivered_dc", "battery_temp"),
    vehicle_tuple,
)
METER = Table(
    "meter",
    "meter_telemetry_history",
    "meter_live_status",
    "meter_id",
    ("kwh_consumed_ac", "voltage"),
    meter_tuple,
)
TABLES = (VEHICLE, METER)
"""In the order in which every writer takes them, so that two writers cannot deadlock."""


def _at_once_sql() -> str:
    vehicles = VEHICLE.at_once_sql(1, after=None)
    meters = METER.at_once_sql(len(VEHICLE.columns) + 1, after=f"{VEHICLE.kind}_live")
    return f"WITH {vehicles}, {meters} SELECT count(*) FROM {METER.kind}_live"  # noqa: S608


AT_ONCE_SQL = _at_once_sql()
"""History and live rows in one statement, and so in one transaction. Takes the columns of vehicles, then of meters.

Parts of a WITH that change tables run in no order of their own, and two writers that lock live rows in different
orders may block each other; so each part waits for the one before.
"""

identity = itemgetter(0, 1)
"""Device and ts of a reading: the order of the key."""


def row_of(reading: Reading) -> Row:
    """A reading's values as parameters: `extra` as JSON text."""
    *values, extra = reading
    return (*values, jsonb_text(extra) if extra else None)


def columns_of(rows: Sequence[Row]) -> list[Sequence[Any]]:
    """Rows turned into the arrays that `unnest` takes; there must be one at least."""
    return list(zip(*rows, strict=True))


REJECT_SQL = (
    "INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload) "
    "SELECT id, $2, source, topic, device, reason, detail, payload FROM unnest($1::uuid[], $3::text[], $4::text[], "
    "$5::text[], $6::text[], $7::text[], $8::bytea[]) AS g(id, source, topic, device, reason, detail, payload) "
    "ON CONFLICT (id) DO NOTHING"
)


def reject_row(rejected: Rejected) -> Row:
    """id, source, topic, device, reason, detail, payload."""
    topic = None if rejected.topic is None else _storable(rejected.topic)
    return (
        reject_id(rejected),
        rejected.source,
        topic,
        rejected.device,
        rejected.reason,
        _storable(rejected.detail),
        rejected.payload,
    )


def reject_id(rejected: Rejected) -> UUID:
    """The same for the same rejected message, so that a redelivery is kept once."""
    parts = (rejected.source, rejected.topic or "", rejected.reason, rejected.device or "")
    digest = blake2b(rejected.payload, digest_size=16, salt=b"rejected")
    for part in parts:
        digest.update(b"\0" + part.encode("utf-8", "surrogatepass"))
    return UUID(bytes=digest.digest())


def _storable(text: str) -> str:
    """Text without what PostgreSQL's text type refuses."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def newest(readings: Sequence[Reading], of_readings: Sequence[T]) -> list[T]:
    """What belongs to each device's newest reading, ordered by device; they are ordered by device and time."""
    return list({reading[0]: its for reading, its in zip(readings, of_readings, strict=True)}.values())
