"""PostgreSQL: history, live rows and rejects in one transaction. The only module that names asyncpg's errors.

Exactly once rests on the key (device, ts): whatever is written again after a crash, a lost connection or an
unknown COMMIT meets its own identity. Fresh batches go straight into the history, large ones by COPY; only when a
row turns out to be there already, or to be twice in the batch, is the batch looked up first and the rest stored.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from bridge.copy_format import copy_data
from bridge.delivery import Item, Outcome
from bridge.errors import LeadershipLost, Misconfigured, Rejected, Source, StoreUnavailable
from bridge.reading import Kind, Reading
from bridge.tables import AT_ONCE_SQL, REJECT_SQL, TABLES, Table, columns_of, identity, newest, reject_row, row_of
from bridge.verdict import Known, any_repeated, presume_new, refuse, sort_out

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SESSION = {
    "application_name": "fleet-bridge",
    "jit": "off",
    "timezone": "UTC",
    # The writer looks rows up by key and nothing else: a plan that scans the history is always wrong here, and
    # the planner cannot know how many elements an array will have.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# Classes 22, 23 and 54 (too complex, too large): the values are at fault, and trying again would not help.
_REFUSED = (
    asyncpg.exceptions.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
_LOCK_SPACE = 0x666C
_ATTEMPTS = 5
AT_ONCE = 256
"""So many readings, or fewer, are stored by one statement; more go by COPY, which costs less for each."""


class _Unstorable(Exception):
    """The database refuses these values (SQLSTATE class 22, 23 or 54), or they cannot even be sent."""


class _AlreadyThere(Exception):
    """A row of the batch is in the history already."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise the database's errors as ours: `StoreUnavailable` for everything that is not the data's fault."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise _AlreadyThere from error
    except asyncpg.CheckViolationError as error:
        raise StoreUnavailable(f"a partition is missing: {error}") from error
    except _REFUSED as error:
        raise _Unstorable(str(error)) from error
    except _FOREIGN as error:
        if isinstance(error, ValueError):  # asyncpg's own DataError: it could not encode a value
            raise _Unstorable(str(error)) from error
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


class PostgresStore:
    """One connection, used by one writer. Connects when it is first needed and again after every failure.

    With a `lock_name` the connection also holds the lock of that name, so that only one bridge of a name writes:
    losing the connection is losing the lock, and `LeadershipLost` says that somebody else has it.
    """

    def __init__(
        self,
        url: str,
        *,
        source: Source = "mqtt",
        lock_name: str | None = None,
        command_timeout_s: float = 30.0,
        partitions_ahead_days: int = 3,
    ) -> None:
        self._url = url
        self._source = source
        self._lock_name = lock_name
        self._timeout_s = command_timeout_s
        self._ahead_days = partitions_ahead_days
        self._connection: Connection | None = None
        self._partitions: set[tuple[str, int]] = set()
        self._prepared_for: date | None = None
        self._look_first = False

    async def connect(self) -> None:
        """Connect unless connected. Raises `StoreUnavailable`, `LeadershipLost` or `Misconfigured`."""
        if self._connection is not None and not self._connection.is_closed():
            return
        with translated():
            connection = await asyncpg.connect(
                self._url,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                # The server gives up when we do: a statement that waits for a lock must not outlive its writer.
                server_settings={**SESSION, "statement_timeout": f"{self._timeout_s * 1000:.0f}"},
                target_session_attrs=SessionAttribute.read_write,
            )
        try:
            with translated():
                await _require_durability(connection)
                await _require_schema(connection)
                for table in TABLES:
                    await connection.execute(table.stage_sql)
                await self._take_lock(connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._partitions.clear()
        self._prepared_for = None

    async def _take_lock(self, connection: Connection) -> None:
        if self._lock_name is None:
            return
        taken = await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", _LOCK_SPACE, self._lock_name)
        if not taken:
            raise LeadershipLost(f"another bridge is {self._lock_name}")

    async def close(self) -> None:
        """Close the connection, and with it give up the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=5)
            except _FOREIGN:
                connection.terminate()

    async def write(self, items: Sequence[Item]) -> list[Outcome]:
        """See `delivery.Store`. What only the database refuses is found by halving and kept as `unstorable`."""
        try:
            return await self._write(items)
        except _Unstorable as error:
            if len(items) > 1:
                half = len(items) // 2
                return await self.write(items[:half]) + await self.write(items[half:])
            if isinstance(items[0], Rejected):
                raise StoreUnavailable(f"a rejected message cannot be kept: {error}") from error
            return await self._write([refuse(items[0], "unstorable", str(error), self._source)])

    async def _write(self, items: Sequence[Item]) -> list[Outcome]:
        """One transaction, again with a look first when a row turns out to be there."""
        for _ in range(_ATTEMPTS):
            await self.connect()
            assert self._connection is not None
            try:
                with translated():
                    outcomes = await self._transaction(self._connection, items)
            except _AlreadyThere:
                self._look_first = True
                continue
            except StoreUnavailable as error:
                self._drop_unless_sound(error)
                raise
            # Repetitions come in runs (a redelivered backlog, a replay): look first until a batch has none.
            self._look_first = self._look_first and any_repeated(outcomes)
            return outcomes
        raise StoreUnavailable("another writer keeps storing the same readings")

    def _drop_unless_sound(self, error: StoreUnavailable) -> None:
        """Keep the connection, and the lock, only after errors that the server survives with the session."""
        cause, connection = error.__cause__, self._connection
        sound = isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "")[:2] in ("40", "53", "55")
        if connection is not None and not (sound and not connection.is_closed()):
            connection.terminate()
            self._connection = None
        self._partitions.clear()

    async def _transaction(self, connection: Connection, items: Sequence[Item]) -> list[Outcome]:
        now = datetime.now(UTC)
        if self._look_first:
            # What is in the history stays there, so this needs no lock; what comes in meanwhile the key refuses.
            outcomes, fresh = sort_out(items, await _look_up(connection, items), self._source)
        else:
            outcomes, fresh = presume_new(items)
        for readings in fresh.values():
            readings.sort(key=identity)
        await self._ensure_partitions(connection, fresh, now)
        rejects = [o for o in outcomes if isinstance(o, Rejected)]
        if not rejects and 0 < sum(map(len, fresh.values())) <= AT_ONCE:
            await _store_at_once(connection, fresh)
            return outcomes
        async with connection.transaction():
            for table in TABLES:
                await _store_fresh(connection, table, fresh[table.kind])
            await _store_rejects(connection, rejects, now)
        return outcomes

    async def _ensure_partitions(self, connection: Connection, fresh: dict[Kind, list[Reading]], now: datetime) -> None:
        days = {(kind, day) for kind, readings in fresh.items() for day in {r.timestamp.toordinal() for r in readings}}
        if self._prepared_for != now.date():
            today = now.toordinal()
            days |= {(t.kind, today + n) for t in TABLES for n in range(self._ahead_days + 1)}
            self._prepared_for = now.date()
        for kind, day in sorted(days - self._partitions):
            history = next(table.history for table in TABLES if table.kind == kind)
            await connection.fetchval("SELECT ensure_partition($1::text::regclass, $2)", history, date.fromordinal(day))
            self._partitions.add((kind, day))


async def _require_durability(connection: Connection) -> None:
    """Refuse a server that may forget what it has confirmed. Raises `Misconfigured`."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        value = await connection.fetchval("SELECT current_setting($1)", name)
        if value in ("off", "local"):
            raise Misconfigured(f"PostgreSQL has {name} = {value}; a stored reading could be lost. Set it to on.")


async def _require_schema(connection: Connection) -> None:
    if not await connection.fetchval("SELECT to_regprocedure('ensure_partition(regclass,date)') IS NOT NULL"):
        raise StoreUnavailable("the database has no tables yet: run `python -m bridge migrate`")


async def _look_up(connection: Connection, items: Sequence[Item]) -> Known:
    """Which items have their identity in the history: their index, and whether all their values are equal."""
    known: Known = {}
    for table in TABLES:
        at = [(n, i) for n, i in enumerate(items) if not isinstance(i, Rejected) and i.kind == table.kind]
        if not at:
            continue
        columns = columns_of([row_of(reading) for _, reading in at])
        found = await connection.fetch(table.look_up_sql, *columns, min(columns[1]), max(columns[1]))
        known.update((at[row["position"] - 1][0], row["same"]) for row in found)
    return known


async def _store_at_once(connection: Connection, fresh: dict[Kind, list[Reading]]) -> None:
    """A few readings in one statement: one round trip where the transaction of `_store_fresh` takes twelve."""
    parameters: list[Sequence[Any]] = []
    for table in TABLES:
        rows = list(map(row_of, fresh[table.kind]))
        parameters += columns_of(rows) if rows else [()] * len(table.columns)
    await connection.execute(AT_ONCE_SQL, *parameters)


async def _store_fresh(connection: Connection, table: Table, readings: list[Reading]) -> None:
    """History and live rows, both in the order of the key: two writers then wait for each other in one order."""
    if not readings:
        return
    tuples = list(map(table.copy_tuple, readings))
    await _copy(connection, table.history, table, tuples)
    await _copy(connection, table.staged, table, newest(readings, tuples))
    await connection.execute(table.upsert_live_sql)


async def _copy(connection: Connection, into: str, table: Table, tuples: list[bytes]) -> None:
    source: Any = copy_data(tuples)  # asyncpg takes a buffer; its annotations do not know that
    await connection.copy_to_table(into, source=source, columns=table.columns, format="binary")


async def _store_rejects(connection: Connection, rejects: list[Rejected], now: datetime) -> None:
    if rejects:
        rows = columns_of(sorted(map(reject_row, rejects), key=lambda row: row[0].bytes))
        await connection.execute(REJECT_SQL, rows[0], now, *rows[1:])
