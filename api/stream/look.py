"""The look at the live tables: one connection, one transaction a look, no index and no write.

A look reads each live table once in sequence and returns the rows that may have been written since the last one
(`api.changes`). After a connect it reads all rows and compares them, so nothing is missed by an outage. In a
fleet of more devices than `stream_whole_devices`, it reads only those that are watched, by the primary key.
"""

import math
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import asyncpg

from api.changes import AsOf, changed_sql
from api.database import READ_ONLY_S, Connection
from api.rows import COLUMNS, members_json
from api.stream.alarms import AlarmLooker, ChangedAlarm
from api.stream.filters import Filter
from api.stream.mirror import Declared, Key, Mirror, Row
from bridge.contract import Kind
from bridge.settings.api import ApiSettings
from bridge.store.database_errors import asking
from bridge.store.session import connect_reader
from bridge.store.tables import TABLES, Table

_SESSION = {"application_name": "fleet-api-stream", "jit": "off", "timezone": "UTC"}
_SESSION |= {"max_parallel_workers_per_gather": "0"}
_PREFETCH = 500
_REGISTER = "SELECT kind, id, site, interval_s FROM device"
_WATCHED_REGISTER = f"{_REGISTER} WHERE id = ANY($1) OR site = ANY($2)"
_COUNT = " + ".join(
    f"(SELECT count(*) FROM (SELECT FROM {table.live} LIMIT $1) AS {table.kind.name})"  # noqa: S608
    for table in TABLES
)


class Look(NamedTuple):
    """What a look has found."""

    as_of: AsOf
    changed: Sequence[Row]
    left: Collection[str]
    """Sites that some device has left."""
    alarms: Sequence[ChangedAlarm]


class Looker:
    """Looks at the live tables. Not for concurrent use."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._use_until = math.inf
        self._seen: AsOf | None = None
        self._is_register_read = False
        self._register: dict[Key, Declared] = {}
        self._changed: dict[tuple[Kind, str], Row] = {}
        self._left: set[str] = set()
        self._of: frozenset[Filter] = frozenset()
        self._alarms = AlarmLooker()
        self._alarms_seen: AsOf | None = None
        self.mirror = Mirror(settings.reading_interval_s)
        self.is_restricted = False
        """Whether there are too many devices to look at them all."""

    async def look(self, watched: frozenset[Filter]) -> Look:
        """Look at what is watched. Raises `StoreUnavailable` and `Misconfigured`; the next look connects again."""
        try:
            with asking():
                return await self._look(watched)
        except BaseException:
            self._disconnect()
            raise

    def forget(self) -> None:
        """Nothing is watched: close the connection, and free the memory."""
        self._disconnect()
        self._changed, self._left = {}, set()
        self.mirror = Mirror(self._settings.reading_interval_s)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._seen = self._alarms_seen = None
        self._is_register_read = False

    async def _look(self, watched: frozenset[Filter]) -> Look:
        if time.monotonic() >= self._use_until:
            self._disconnect()
        c = self._connection or await self._connect()
        if self.is_restricted and watched != self._of:
            self._seen, self._is_register_read = None, False
        async with c.transaction(isolation="repeatable_read", readonly=True):
            as_of = await AsOf.read(c)
            if self._seen is None:
                await self._count(c)
            await self._read_register(c, watched, as_of.at.timestamp())
            ids = self._ids(watched) if self.is_restricted else {}
            if self.is_restricted and self._seen is None:
                self.mirror.keep(ids)
            for table in TABLES:
                await self._read_rows(c, table, ids.get(table.kind))
            alarms = await self._alarms.look(c, self._alarms_seen)
        self._note(self.mirror.forget_silences_until(as_of.at.timestamp()))
        found = Look(as_of, list(self._changed.values()), self._left, alarms)
        self._alarms_seen = as_of
        self._seen, self._of, self._changed, self._left = as_of, watched, {}, set()
        self._grow()
        return found

    def _note(self, rows: Iterable[Row]) -> None:
        """These rows have changed. They are returned by the next look that succeeds."""
        self._changed |= {(row.kind, row.id): row for row in rows}

    async def _connect(self) -> Connection:
        settings = self._settings
        c, is_read_only = await connect_reader(settings.database_url, settings.query_timeout_s, _SESSION)
        self._connection = c
        self._use_until = math.inf
        if is_read_only:  # Such a server announces nothing: after a new connection everything is read again.
            self._use_until = time.monotonic() + READ_ONLY_S
        else:
            await c.add_listener("fleet_device", self._register_changed)
        return c

    def _register_changed(self, _: object, __: int, ___: str, ____: object) -> None:
        self._is_register_read = False

    async def _count(self, c: Connection) -> None:
        most = self._settings.stream_whole_devices
        was = self.is_restricted
        self.is_restricted = await c.fetchval(f"SELECT {_COUNT}", most + 1) > most
        if self.is_restricted and not was:
            self.mirror = Mirror(self._settings.reading_interval_s)

    def _grow(self) -> None:
        """Count again when the fleet has outgrown what is looked at as a whole."""
        if not self.is_restricted and len(self.mirror) > self._settings.stream_whole_devices:
            self._seen, self._is_register_read = None, False

    async def _read_register(self, c: Connection, watched: frozenset[Filter], now: float) -> None:
        if self._is_register_read:
            return
        self._is_register_read = True  # a change that is announced meanwhile is read by the next look
        if self.is_restricted:
            ids = sorted({id_ for each in watched for id_ in each.ids or ()})
            rows = await c.fetch(
                _WATCHED_REGISTER, ids, sorted({each.site for each in watched if each.site is not None})
            )
            self._seen = None  # a site may have other devices
        else:
            rows = await c.fetch(_REGISTER)
        self._register = {(row["kind"], row["id"]): Declared(row["site"], row["interval_s"]) for row in rows}
        changed, left = self.mirror.declare(self._register, now)
        self._note(changed)
        self._left |= left

    def _ids(self, watched: frozenset[Filter]) -> dict[Kind, list[str]]:
        """The watched devices by kind."""
        found: dict[Kind, list[str]] = {}
        for table in TABLES:
            kind = table.kind
            filters = [each for each in watched if each.kind in (None, kind) and not each.is_whole]
            ids = {id_ for each in filters for id_ in each.ids or ()}
            sites = {each.site for each in filters if each.ids is None}
            ids |= {id_ for (name, id_), (site, _) in self._register.items() if name == kind.name and site in sites}
            found[kind] = sorted(ids)
        return found

    async def _read_rows(self, c: Connection, table: Table, ids: Sequence[str] | None) -> None:
        """Take the rows of these devices, or all, that may have changed since the last look."""
        conditions: list[str] = []
        arguments: list[object] = []
        if ids is not None:
            arguments.append(ids)
            conditions.append(f"{table.device_column} = ANY(${len(arguments)})")
        if self._seen is not None:
            arguments.append(self._seen.xid)
            conditions.append(changed_sql("live", f"${len(arguments)}"))
        where = " AND ".join(conditions) or "true"
        sql = f"SELECT {COLUMNS[table.kind]}, xmin AS written_by FROM {table.live} live WHERE {where}"  # noqa: S608
        cursor = await c.cursor(sql, *arguments)
        while records := await cursor.fetch(_PREFETCH):
            rows = (self._take(table.kind, record) for record in records)
            self._note(row for row in rows if row is not None)

    def _take(self, kind: Kind, record: asyncpg.Record) -> Row | None:
        id_, xmin = record[0], record["written_by"]
        if self._seen is not None and self.mirror.knows(kind, id_, xmin):
            return None
        body = "{" + members_json(islice(record.items(), len(record) - 1))
        return self.mirror.take(kind, id_, xmin, body, record["ts"].timestamp())
