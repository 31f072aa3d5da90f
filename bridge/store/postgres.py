"""Writes history, its projections and rejects to PostgreSQL in one transaction.

The primary key (device, ts) deduplicates readings that are written again after a crash, a lost connection or an unknown
outcome of COMMIT. A large batch is presumed new and copied into the history with COPY; only if a row is already there,
or twice in the batch, are the identities looked up first and the new rows stored. A few readings are stored by one
call, which skips rows that are already there.
"""

from collections.abc import Sequence
from datetime import date
from operator import itemgetter
from typing import Any

import structlog

from bridge.clock import Clock, steady_s
from bridge.contract import Kind
from bridge.delivery import Item, Kept, Outcome
from bridge.errors import Misconfigured, Rejected, StoreUnavailable, Unreachable
from bridge.reading import Reading
from bridge.store import few, singly
from bridge.store.copy_format import copy_data, copy_tuples, measures_of
from bridge.store.database_clock import compare
from bridge.store.database_errors import FOREIGN, AlreadyThere, Unstorable, storing, survives
from bridge.store.late_marks import marked_until_sql
from bridge.store.migrate import require_applied
from bridge.store.pooler import require_own_session
from bridge.store.projection import Projection
from bridge.store.projections import PROJECTIONS
from bridge.store.quotas import NO_QUOTA, Charge, Excess, Quotas
from bridge.store.ratings import Ratings
from bridge.store.session import Connection, take_lock
from bridge.store.synchronous import Confirmations, confirm
from bridge.store.tables import TABLES, Table, columns_of, identity, reject_columns, reject_sql
from bridge.store.timeline import Fence, open_newest
from bridge.store.verdict import (
    NOTHING_FRESH,
    Fresh,
    Identity,
    Known,
    any_repeated,
    identity_of,
    presume_new,
    reading_of,
    refuse,
    sort_out,
    with_warnings,
)

log = structlog.get_logger(__name__)

SESSION = {
    "application_name": "fleet-bridge",
    # The writer looks rows up only by key: a plan that scans the history is always wrong here, and the planner does
    # not know how many elements an array will have.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
}
_LOCK_SPACE = 0x666C
_ATTEMPTS = 5
FEW = 256
"""Up to this number, readings are stored by one call; more are stored by COPY, which costs less per reading."""
_DECLARED_CHANNEL = "fleet_device"
_DECLARED = "SELECT kind, id, interval_s, rated_kw FROM device WHERE interval_s IS NOT NULL OR rated_kw IS NOT NULL"
_REJECT = f"SELECT {reject_sql()}"
_COUNT_EXCESS = f"""
INSERT INTO reject_excess AS e (since, {", ".join(Excess._fields)}, messages, bytes)
SELECT date_trunc('hour', now()), * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[])
ON CONFLICT (since, {", ".join(Excess._fields)})
DO UPDATE SET messages = e.messages + excluded.messages, bytes = e.bytes + excluded.bytes
"""  # noqa: S608
_ENSURE = "SELECT ensure_partition($1::text::regclass, $2)"
_device = itemgetter(0)


class PostgresStore:
    """One connection, used by one writer. It is opened on first use and again after a failure.

    With a `lock_name` the connection also holds the advisory lock of that name, so that only one bridge of a name
    writes. A lost connection releases the lock; `LeadershipLost` means that another bridge holds it.
    A `clock` is compared with the database's: with each new connection, and with a write when it is due.
    What is beyond the `quotas` is not stored: such a reading becomes a `quota_exceeded` reject, and such a reject is
    counted.
    A batch of more than `copy_above` readings is stored by COPY (`FEW` when None).
    """

    def __init__(
        self,
        url: str,
        *,
        source: str = "mqtt",
        lock_name: str | None = None,
        command_timeout_s: float = 30.0,
        interval_s: float = 60.0,
        clock: Clock | None = None,
        quotas: Quotas | None = None,
        copy_above: int | None = None,
    ) -> None:
        self._url = url
        self._clock = clock
        self._quotas = quotas or Quotas(NO_QUOTA)
        self._source = source
        self._lock_name = lock_name
        self._timeout_s = command_timeout_s
        self._connection: Connection | None = None
        self._partitions: set[tuple[str, int]] = set()
        self._look_first = False
        self._few = FEW if copy_above is None else copy_above
        self._ratings = Ratings(interval_s)
        self._ratings_are_stale = True
        self._fence = Fence()
        self._confirmations = Confirmations()

    async def connect(self) -> None:
        """Connect unless connected. Raises `StoreUnavailable`, `LeadershipLost` or `Misconfigured`."""
        if self._connection is not None and not self._connection.is_closed():
            return
        try:
            with storing():
                connection = await open_newest(self._url, self._timeout_s, SESSION, self._fence)
        except Unreachable:
            raise
        except StoreUnavailable as error:
            raise Unreachable(str(error)) from error
        try:
            await require_own_session(connection, self._url)
            with storing():
                await _require_durability(connection)
                await require_applied(connection)
                await _require_columns(connection)
                connection.add_log_listener(self._confirmations.hear)
                await connection.add_listener(_DECLARED_CHANNEL, self._declarations_changed)
                await connection.execute(_STAGE_SQL)
                await connection.execute(few.MAKE_SQL)
                if self._lock_name is not None:
                    await take_lock(connection, _LOCK_SPACE, self._lock_name, f"another bridge is {self._lock_name}")
                if self._clock is not None:
                    await compare(connection, self._clock)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._partitions.clear()
        self._ratings_are_stale = True

    def _declarations_changed(self, *_: object) -> None:
        self._ratings_are_stale = True

    async def close(self) -> None:
        """Close the connection, which releases the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=5)
            except FOREIGN:
                connection.terminate()

    async def write(self, items: Sequence[Item]) -> list[Outcome]:
        """See `delivery.Store`. A reading that only the database refuses becomes an `unstorable` reject.

        To find it, each reading is stored alone in a transaction that is rolled back; then the batch is written.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._write(items)
            except Unstorable as error:
                items = await self._without_refused(items, error)
        raise StoreUnavailable("the database refuses a batch whose readings it accepted one by one")

    async def foresee(self, items: Sequence[Item]) -> list[Outcome]:
        """The outcomes that `write` would have now, without warnings; stores nothing. Raises `StoreUnavailable`.

        A reading that only the database refuses is not foreseen, unless it cannot even be looked up.
        """
        try:
            known = await self._known(items)
        except Unstorable as error:
            items = await self._without_refused(items, error)
            known = await self._known(items)
        return sort_out(items, known, self._source)[0]

    async def _known(self, items: Sequence[Item]) -> Known:
        await self.connect()
        assert self._connection is not None
        try:
            with storing():
                return await _look_up(self._connection, items)
        except StoreUnavailable as error:
            self._drop_unless_usable(error)
            raise

    async def _without_refused(self, items: Sequence[Item], error: Unstorable) -> list[Item]:
        """Replace the readings that the database refuses by rejections. Raises `StoreUnavailable` when it refuses no
        single reading: then it is a rejected message that cannot be stored.
        """
        await self.connect()
        assert self._connection is not None
        readings = {n: reading for n, item in enumerate(items) if (reading := reading_of(item)) is not None}
        try:
            with storing():
                reasons = await singly.refused(self._connection, readings)
        except StoreUnavailable as unavailable:
            self._drop_unless_usable(unavailable)
            raise
        if not reasons:
            raise StoreUnavailable(f"the batch is refused as a whole: {error}") from error
        return [
            refuse(readings[n], "unstorable", _reason(reasons[n], error), self._source) if n in reasons else item
            for n, item in enumerate(items)
        ]

    async def _write(self, items: Sequence[Item]) -> list[Outcome]:
        """Write in one transaction; if a row is already there, retry with a look-up first."""
        for _ in range(_ATTEMPTS):
            await self.connect()
            assert self._connection is not None
            try:
                with storing():
                    outcomes = await self._transaction(self._connection, items)
                    if outcomes.count(Kept.STORED) < len(outcomes):
                        await confirm(self._connection)
                    self._confirmations.require()
                    return outcomes
            except AlreadyThere:
                self._look_first = True
                if len(items) <= self._few:  # PostgreSQL skips such rows in the call; a distributed table does not
                    self._few = 0
                    log.warning("the database refuses repeated readings in small batches: all are stored by COPY now")
            except StoreUnavailable as error:
                self._drop_unless_usable(error)
                raise
        raise StoreUnavailable("another writer keeps storing the same readings")

    def _drop_unless_usable(self, error: StoreUnavailable) -> None:
        """Drop the connection, and with it the lock, unless the session can still be used after the error."""
        connection = self._connection
        if connection is not None and not (survives(error) and not connection.is_closed()):
            connection.terminate()
            self._connection = None
        self._partitions.clear()

    async def _transaction(self, connection: Connection, items: Sequence[Item]) -> list[Outcome]:
        if self._clock is not None and self._clock.is_due:
            await compare(connection, self._clock)
        if self._ratings_are_stale:
            self._ratings_are_stale = False
            self._ratings.declare(tuple(row) for row in await connection.fetch(_DECLARED))
        charge = Charge(self._quotas, self._source, steady_s())
        presumed, readings = presume_new(items)
        admitted = charge.admit(items, readings)
        if admitted is not items:
            items = admitted
            presumed, readings = presume_new(items)
        if 0 < len(items) <= self._few:
            outcomes = await self._store_few(connection, items, charge)
        elif self._look_first:
            # Rows of the history are permanent, so this needs no lock; the key refuses rows that were stored meanwhile.
            outcomes, fresh = sort_out(items, await _look_up(connection, items), self._source)
            await self._store_many(connection, outcomes, fresh, charge)
            # Duplicates occur in sequences (a redelivered backlog, a replay): look up first until a batch has none.
            self._look_first = any_repeated(outcomes)
        else:
            outcomes = presumed
            await self._store_many(connection, outcomes, readings, charge)
        charge.committed(items, outcomes)
        return with_warnings(items, outcomes, readings, self._ratings)

    async def _store_few(self, connection: Connection, items: Sequence[Item], charge: Charge) -> list[Outcome]:
        """Store the batch in one call, and look up the readings that were already there.

        Conflicts are stored by a second call, because they are known only after the first. If the process dies in
        between, the batch is redelivered and has the same conflicts.
        """
        outcomes, fresh = sort_out(items, {}, self._source)
        _sort(fresh)
        await self._ensure_partitions(connection, fresh)
        rejects = charge.sift([item for item in items if isinstance(item, Rejected)])
        found = await connection.fetch(few.CALL_SQL, *few.parameters(fresh, rejects, self._source))
        if found:
            await self._judge_again(connection, items, outcomes, few.repeated(fresh, (tuple(row) for row in found)))
        conflicts = [o for o, item in zip(outcomes, items, strict=True) if isinstance(o, Rejected) and o is not item]
        if kept := charge.sift(conflicts):
            await connection.fetch(few.CALL_SQL, *few.parameters(NOTHING_FRESH, kept, self._source))
        await _count_excess(connection, charge)
        return outcomes

    async def _judge_again(
        self, connection: Connection, items: Sequence[Item], outcomes: list[Outcome], repeated: dict[Identity, bool]
    ) -> None:
        """Correct the outcomes of items whose identity was in the history, where the batch's first was not the first.

        Where the history has the same values, the other items of that identity were compared with the right values.
        """
        seen: set[Identity] = set()
        unclear: list[int] = []
        for n, item in enumerate(items):
            if (reading := reading_of(item)) is None or (identity := identity_of(reading)) not in repeated:
                continue
            if not repeated[identity]:
                unclear.append(n)
            elif identity not in seen:
                outcomes[n] = Kept.DUPLICATE
            seen.add(identity)
        if unclear:
            again = [items[n] for n in unclear]
            judged, _ = sort_out(again, await _look_up(connection, again), self._source)
            for n, outcome in zip(unclear, judged, strict=True):
                outcomes[n] = outcome

    async def _store_many(
        self, connection: Connection, outcomes: Sequence[Outcome], fresh: Fresh, charge: Charge
    ) -> None:
        _sort(fresh)
        await self._ensure_partitions(connection, fresh)
        async with connection.transaction():
            for table in TABLES:
                await _copy_fresh(connection, table, fresh[table.kind])
            kept = charge.sift([o for o in outcomes if isinstance(o, Rejected)])
            await _store_rejects(connection, kept, self._source)
            await _count_excess(connection, charge)

    async def _ensure_partitions(self, connection: Connection, fresh: Fresh) -> None:
        """Create what these readings need and no more: creating waits for locks that readings do not wait for.

        Raises `Unstorable` when the database creates none for some day.
        """
        days = {(kind.name, day) for kind, own in fresh.items() for day in {r[1].toordinal() for r in own}}
        refusal: Unstorable | None = None
        for kind, day in sorted(days - self._partitions):
            history = next(table.history for table in TABLES if table.kind.name == kind)
            try:
                with storing():
                    await connection.fetchval(_ENSURE, history, date.fromordinal(day))
            except Unstorable as error:
                refusal = error  # of this day only: the readings of the others shall find their partitions
            else:
                self._partitions.add((kind, day))
        if refusal is not None:
            raise refusal


def _reason(found: str, error: Unstorable) -> str:
    """Why a reading cannot be stored. That its partition is missing follows from the error of the batch."""
    return str(error) if found.startswith("no partition of relation") else found


def _sort(fresh: Fresh) -> None:
    """Sort each kind's readings in the order of the key, in which every writer acquires its locks."""
    for readings in fresh.values():
        devices = set(map(_device, readings))
        # If each device occurs once, its id alone determines the order, which takes half the time.
        readings.sort(key=_device if len(devices) == len(readings) else identity)


async def _require_durability(connection: Connection) -> None:
    """Refuse a server that may lose committed transactions. Raises `Misconfigured`."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        value = await connection.fetchval("SELECT current_setting($1)", name)
        if value in ("off", "local"):
            raise Misconfigured(f"PostgreSQL has {name} = {value}; a stored reading could be lost. Set it to on.")


async def _require_columns(connection: Connection) -> None:
    """Refuse tables that lack a column of the contract, even with all migrations. Raises `Misconfigured`."""
    for table in TABLES:
        for relation in (table.history, table.live):
            found = {row[0] for row in await connection.fetch(_COLUMNS, relation)}
            if missing := [column for column in table.columns if column not in found]:
                raise Misconfigured(f"the table {relation} lacks {', '.join(missing)}: a migration is missing")


_COLUMNS = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped"


async def _look_up(connection: Connection, items: Sequence[Item]) -> Known:
    """Look up which items have their identity in the history: their index, and whether all their values are equal."""
    known: Known = {}
    readings = [(n, reading) for n, item in enumerate(items) if (reading := reading_of(item)) is not None]
    for table in TABLES:
        own = [(n, reading) for n, reading in readings if reading.kind is table.kind]
        if not own:
            continue
        columns = columns_of(table, [reading for _, reading in own])
        found = await connection.fetch(table.look_up_arrays_sql, *columns, min(columns[1]), max(columns[1]))
        known.update((own[row["position"] - 1][0], row["same"]) for row in found)
    return known


def _staged(projection: Projection, kind: Kind) -> str:
    """The temporary table through which a projection's rows are written; it is empty outside of a transaction."""
    return f"staged_{projection.name}_{kind.name}"


# COPY into a table costs the client a third of the CPU time of arrays for `unnest`.
_STAGE_SQL = "; ".join(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS {_staged(projection, table.kind)} ON COMMIT DELETE ROWS AS "  # noqa: S608
    f"SELECT {', '.join(table.columns)} FROM {table.live} WITH NO DATA"
    for table in TABLES
    for projection in PROJECTIONS
)


async def _copy_fresh(connection: Connection, table: Table, readings: list[Reading]) -> None:
    """Write history and projections in the order of the key, so that two writers cannot deadlock.

    Only columns that occur in the readings are sent; in the history the others are null, in projections unchanged.
    """
    if not readings:
        return
    measures = measures_of(frozenset(map(type, readings)))
    columns, tuples = table.columns_with(measures), copy_tuples(readings, measures)
    await _copy(connection, table.history, columns, tuples)
    late_before = await connection.fetchval(marked_until_sql(table.kind))
    for projection in PROJECTIONS:
        positions, rounds = projection.pick(readings, late_before)
        if not positions:
            continue
        staged = _staged(projection, table.kind)
        await _copy(connection, staged, columns, [tuples[n] for n in positions])
        for _ in range(rounds):
            await connection.execute(projection.sql(table, staged, measures, rounds=rounds > 1))


async def _copy(connection: Connection, into: str, columns: list[str], tuples: list[bytes]) -> None:
    source: Any = copy_data(tuples)  # asyncpg accepts a buffer, but its annotations do not
    await connection.copy_to_table(into, source=source, columns=columns, format="binary")


async def _store_rejects(connection: Connection, rejects: Sequence[Rejected], source: str) -> None:
    if rejects:
        await connection.execute(_REJECT, *reject_columns(rejects, source))


async def _count_excess(connection: Connection, charge: Charge) -> None:
    """Count the rejects that are not kept."""
    if charge.excess:
        rows = sorted((*excess, *sums) for excess, sums in charge.excess.items())
        await connection.execute(_COUNT_EXCESS, *zip(*rows, strict=True))
