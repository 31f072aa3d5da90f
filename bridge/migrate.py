"""Bring the schema up to date: each SQL file once, in order, in one transaction, whoever else tries too."""

from importlib.resources import files

import asyncpg
import structlog

from bridge.errors import Misconfigured

log = structlog.get_logger(__name__)

_LOCK = 0x666C656574  # "fleet"


async def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return the names applied.

    Safe when several processes start at once: one applies, the others wait for it. Raises `Misconfigured` when
    the database has a migration that this version does not know.
    """
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            applied = await _apply_missing(connection)
            await _grant(connection)
            return applied
    finally:
        await connection.close()


async def _apply_missing(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration "
        "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {row["name"] for row in await connection.fetch("SELECT name FROM schema_migration")}
    known = migrations()
    if unknown := applied - known.keys():
        raise Misconfigured(f"the database is newer than this program: it has {', '.join(sorted(unknown))}")
    missing = [name for name in known if name not in applied]
    for name in missing:
        await connection.execute(known[name])
        await connection.execute("INSERT INTO schema_migration (name) VALUES ($1)", name)
    return missing


async def _grant(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Give the group roles their rights. Those that are not there, and that we may not make, are asked for."""
    if missing := await connection.fetchval("SELECT grant_roles()"):
        remedy = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        log.warning("roles are missing: as a superuser run the remedy, then migrate again", remedy=remedy)


def migrations() -> dict[str, str]:
    """The SQL of every migration by its name, in the order in which they apply."""
    found = (file for file in files("bridge.schema").iterdir() if file.name.endswith(".sql"))
    return {file.name.removesuffix(".sql"): file.read_text() for file in sorted(found, key=lambda f: f.name)}
