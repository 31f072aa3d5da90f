"""Which partitions of a stream are this bridge's: advisory locks of one session divide them among bridges of one name.

The locks end with the process, as the database notices at once, so another bridge takes its partitions over within a
second. Each bridge keeps at most its share: the partitions divided by the bridges, rounded up. Locks keep the order and
save work; they do not carry the guarantee, because the key of the history absorbs what two bridges store.
"""

import asyncio
from collections.abc import AsyncGenerator, Set

import structlog

from bridge.errors import LeadershipLost, StoreUnavailable
from bridge.store.database_errors import FOREIGN, asking
from bridge.store.pooler import require_own_session
from bridge.store.session import Connection, open_session, take_lock

log = structlog.get_logger(__name__)

_SPACE, _MEMBERS_SPACE = 0x666C, 0x666D
_SETTINGS = {"application_name": "fleet-bridge-partitions"}
_LOOK_S = 0.5
_JOIN = "SELECT pg_advisory_lock_shared($1, hashtext($2))"
_LOCKS = """
FROM pg_locks AS l
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = $1::int::oid
"""
# Any login can take the lock, so only those of writers count.
_MEMBERS = f"""
SELECT count(*) {_LOCKS} AND l.objid = hashtext($2)::oid AND l.pid IN (
    SELECT pid FROM pg_stat_activity AS a
    WHERE a.usesysid = current_user::regrole OR pg_has_role(a.usesysid, to_regrole('fleet_writer'), 'MEMBER')
)
"""  # noqa: S608
_OWN_KEYS = f"SELECT l.objid::int8 {_LOCKS} AND l.pid = pg_backend_pid()"
_RELEASE = "SELECT pg_advisory_unlock($1, $2)"


class Ownership:
    """The partitions of `name`, numbered from 0, that this process owns."""

    def __init__(self, url: str, name: str, partitions: int, timeout_s: float) -> None:
        self._url, self._name, self._partitions, self._timeout_s = url, name, partitions, timeout_s
        self._connection: Connection | None = None
        self._keys: dict[int, int] = {}

    async def changes(self) -> AsyncGenerator[frozenset[int], None]:
        """Yield the owned partitions at each change. Others get one only when the caller asks for the next change.

        Raises `Misconfigured` when locks do not last on this connection.
        """
        told: frozenset[int] = frozenset()
        while True:
            try:
                kept = await self._kept(await self._connect())
                if kept != told:
                    yield (told := kept)
                await self._release(self._keys.keys() - kept)
            except StoreUnavailable as error:
                log.warning("partitions given up: database unavailable", reason=str(error))
                self._drop()
                if told:
                    yield (told := frozenset())
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Release all partitions."""
        if self._connection is not None:
            try:
                await self._connection.close(timeout=5)
            except FOREIGN:
                self._connection.terminate()
        self._drop()

    async def _connect(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._drop()
        connection = await open_session(self._url, self._timeout_s, _SETTINGS)
        try:
            await require_own_session(connection, self._url)
            with asking():
                await connection.fetchval(_JOIN, _MEMBERS_SPACE, self._name)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._keys.clear()

    async def _kept(self, connection: Connection) -> frozenset[int]:
        """What this bridge should own: its share of what it has, and of what is free."""
        with asking():
            members = await connection.fetchval(_MEMBERS, _MEMBERS_SPACE, self._name)
            most = -(-self._partitions // max(members, 1))
            for number in range(self._partitions):
                if len(self._keys) < most and number not in self._keys:
                    await self._take(connection, number)
        return frozenset(sorted(self._keys)[:most])

    async def _take(self, connection: Connection, number: int) -> None:
        before = await _keys(connection)
        try:
            await take_lock(connection, _SPACE, self._lock(number), "another bridge reads it")
        except LeadershipLost:
            return
        for key in await _keys(connection) - before:
            self._keys[number] = key

    async def _release(self, numbers: Set[int]) -> None:
        assert self._connection is not None
        with asking():
            for number in numbers:
                await self._connection.fetchval(_RELEASE, _SPACE, self._keys.pop(number))

    def _lock(self, number: int) -> str:
        """The first one has the lock that is a bridge's without partitions, also in earlier versions."""
        return self._name if number == 0 else f"{self._name}/{number}"


async def _keys(connection: Connection) -> set[int]:
    """The keys of the partitions' locks of this session, as the functions of PostgreSQL take them."""
    return {(row[0] + 2**31) % 2**32 - 2**31 for row in await connection.fetch(_OWN_KEYS, _SPACE)}
