"""Migrates the schema: applies each SQL file once, in order, in one transaction, also with concurrent migrations."""

import asyncio
import math
import random
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple, TypeAlias

import asyncpg
import structlog

from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.database_errors import LOCKED

log = structlog.get_logger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_LOCK = 0x666C656574  # "fleet"
_LOCK_TIMEOUT_MS = 1_500
"""A session that waits for a lock blocks all later requests for it. It is longer than PostgreSQL's deadlock_timeout
(1 s), because only after that time the server cancels an autovacuum that blocks the session.
"""
_ATTEMPTS = 60
_PAUSE_S = 0.5
_KEEPS_CHECKSUMS = (
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'checksum')"
)
_WAITING_DAYS = 31
_WIDEN = """
UPDATE partition_window SET past_days = greatest(past_days, $1), ahead_days = greatest(ahead_days, $2)
WHERE past_days < $1 OR ahead_days < $2
"""
_NOTE_CHECKSUMS = (
    "UPDATE schema_migration SET checksum = given.checksum "
    "FROM unnest($1::text[], $2::text[]) AS given(name, checksum) "
    "WHERE schema_migration.name = given.name AND schema_migration.checksum IS NULL"
)


async def migrate(database_url: str) -> list[str]:
    """Apply missing migrations and return their names.

    May run concurrently and while other programs write: a migration waits for its locks only for a short time, so that
    it does not block other sessions, and then retries. Raises `Misconfigured` when the database has a migration that
    this version does not know, or one with another checksum.
    """
    connection = await asyncpg.connect(database_url)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                return await _migrate(connection)
            except LOCKED as error:
                if attempt == _ATTEMPTS - 1:
                    raise StoreUnavailable(f"a table is locked by other sessions: {error}") from error
                log.info("migration waiting for a lock", reason=str(error))
                await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")
    finally:
        await connection.close()


async def widen_partition_window(database_url: str, past_days: float, ahead_days: float) -> None:
    """Let the programs have partitions created from so many days ago to so many ahead. It is never narrowed.

    A batch may wait for the database for weeks before it is written, so a month is added.
    """
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_WIDEN, math.ceil(past_days) + _WAITING_DAYS, math.ceil(ahead_days) + 1)
    finally:
        await connection.close()


async def _migrate(connection: Connection) -> list[str]:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
        applied = await _apply_missing(connection)
        await _grant(connection)
        return applied


async def _apply_missing(connection: Connection) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration "
        "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    await connection.execute("ALTER TABLE schema_migration ADD COLUMN IF NOT EXISTS checksum text")
    known = migrations()
    state = await _state(connection, known)
    if state.unknown:
        raise Misconfigured(f"the database is newer than this program: it has {', '.join(state.unknown)}")
    if state.changed:
        raise Misconfigured(_changed(state))
    for name in state.missing:
        await connection.execute(known[name])
        await connection.execute("INSERT INTO schema_migration (name) VALUES ($1)", name)
    # Add checksums to a database of a version without them.
    sums = {name: checksum(sql) for name, sql in known.items()}
    await connection.execute(_NOTE_CHECKSUMS, list(sums), list(sums.values()))
    return state.missing


async def require_applied(connection: Connection) -> None:
    """Compare the database's migrations with this program's.

    Raises `Misconfigured`, with the remedy, when one is missing or has another checksum; `StoreUnavailable` for an
    empty database, which may be migrated soon. Migrations that this version does not know are newer; they are
    compatible with the previous version, so they are only logged.
    """
    if not await connection.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL"):
        raise StoreUnavailable("the database has no tables yet: run `python -m bridge migrate`")
    if not await connection.fetchval(_KEEPS_CHECKSUMS):
        raise Misconfigured("the database is of an earlier version: run `python -m bridge migrate`")
    state = await _state(connection, migrations())
    if state.missing:
        raise Misconfigured(f"the database lacks {', '.join(state.missing)}: run `python -m bridge migrate`")
    if state.changed:
        raise Misconfigured(_changed(state))
    if state.unknown:
        log.warning("database schema newer than this program", unknown=state.unknown)


class _State(NamedTuple):
    """The differences between the migrations of the database and those of this program."""

    missing: list[str]
    changed: list[str]
    unknown: list[str]


async def _state(connection: Connection, known: dict[str, str]) -> _State:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migration")
    applied = {row["name"]: row["checksum"] for row in rows}
    changed = [name for name, sql in known.items() if (applied.get(name) or checksum(sql)) != checksum(sql)]
    return _State([name for name in known if name not in applied], changed, sorted(applied.keys() - known.keys()))


def _changed(state: _State) -> str:
    return (
        f"the database has another version of {', '.join(state.changed)} than this program; "
        "restore the file as it was released, and put changes into a new migration"
    )


async def _grant(connection: Connection) -> None:
    """Grant the group roles their rights, and take those of everybody. Log what this role may not do."""
    if missing := await connection.fetchval("SELECT grant_roles()"):
        create = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        log.warning("roles missing", remedy=f"as a superuser run `{create}`, then migrate again")
    if refused := await connection.fetchval("SELECT revoke_public()"):
        log.warning("PUBLIC has rights", remedy=f"as a superuser run `{'; '.join(refused)}`")


def migrations() -> dict[str, str]:
    """The SQL of every migration by its name, in the order in which they apply."""
    found = (file for file in files("bridge.schema").iterdir() if file.name.endswith(".sql"))
    return {file.name.removesuffix(".sql"): file.read_text() for file in sorted(found, key=lambda f: f.name)}


def checksum(sql: str) -> str:
    """The checksum of a migration's text, as the database stores it."""
    return sha256(sql.encode()).hexdigest()
