"""API keys in the database: create, list, revoke, rotate. Each action is recorded in the audit log with its actor:
the user of the command line, or `key:ID` of an administrator's key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

import asyncpg

from api.auth import ApiKey, Scope, new_token, token_hash
from api.database import Connection
from api.register_models import is_text
from api.sight import Sight, is_device_pattern
from bridge import audit

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("ingest", "read", "assign")
LIMITABLE: frozenset[Scope] = frozenset({"ingest", "read"})
"""The scopes of a key that is limited to devices or sites."""

_CREATE = """
INSERT INTO api_key (id, name, hash, scopes, devices, sites, expires_at, replaces)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval, $8)
"""
_FIND = "SELECT id, name, hash, scopes, devices, sites, expires_at, revoked_at FROM api_key WHERE id = $1"
_SHOWN = """
SELECT id, name, scopes, devices, sites, created_at, expires_at, revoked_at, last_used_at, replaces FROM api_key
"""
_SHOW = _SHOWN + "WHERE id = $1"
_LIST = _SHOWN + "ORDER BY created_at, id"
_PAGE = _SHOWN + ("WHERE $1::timestamptz IS NULL OR (created_at, id) > ($1, $2::text) ORDER BY created_at, id LIMIT $3")
_REVOKE = "UPDATE api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING name"
# The expiry of a key that has a successor is the end of their overlap: the successor has the one that was meant.
_LOCK = """
SELECT name, scopes, devices, sites, CASE
    WHEN EXISTS (SELECT FROM api_key s WHERE s.replaces = k.id)
    THEN (SELECT s.expires_at FROM api_key s WHERE s.replaces = k.id ORDER BY s.created_at, s.id LIMIT 1)
    ELSE expires_at END - now() AS lifetime
FROM api_key k WHERE id = $1 AND revoked_at IS NULL FOR UPDATE
"""
# A key that expires before the end of the overlap keeps its expiry.
_LAPSE = "UPDATE api_key SET expires_at = least(expires_at, now() + $2::interval) WHERE id = $1"
_USED = """
UPDATE api_key SET last_used_at = greatest(last_used_at, used.at)
FROM unnest($1::text[], $2::timestamptz[]) AS used(id, at) WHERE api_key.id = used.id
"""


def scopes(names: Sequence[str]) -> tuple[Scope, ...]:
    """The scopes of these names. Raises `ValueError` for an unknown one."""
    if unknown := set(names).difference(SCOPES):
        raise ValueError(f"unknown scope {', '.join(sorted(unknown))}; the scopes are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in names)


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights and the lifetime of a new key. Raises `ValueError` for a contradictory combination."""

    scopes: tuple[Scope, ...]
    devices: tuple[str, ...] | None = None
    lifetime: timedelta | None = None
    sites: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.devices == () or self.sites == ():
            raise ValueError("a key that is limited to devices or sites names at least one")
        for device in self.devices or ():
            if not is_device_pattern(device):
                raise ValueError(f"{device!r} is not a device id, a prefix (EV_*) or a device of a kind (vehicle:EV_1)")
        for site in self.sites or ():
            if not is_text(site):
                raise ValueError(f"{site!r} is not the name of a site: 1 to 200 characters without control characters")
        is_limited = self.devices is not None or self.sites is not None
        if is_limited and not set(self.scopes) <= LIMITABLE:
            raise ValueError("a key that is limited to devices or sites can only have the scopes ingest and read")


async def create(connection: Connection, name: str, grant: Grant, actor: str | None = None) -> tuple[str, str]:
    """Create a key; return its id and the complete key, which is not stored and cannot be shown again."""
    id_, token = await _insert(connection, name, grant, None)
    rights = {"scopes": grant.scopes, "devices": grant.devices, "sites": grant.sites}
    await audit.record(connection, actor or audit.operator(), "key.create", f"key:{id_}", name=name, **rights)
    return id_, token


async def _insert(connection: Connection, name: str, grant: Grant, replaces: str | None) -> tuple[str, str]:
    id_, token = new_token()
    rights = grant.scopes, grant.devices, grant.sites
    await connection.execute(_CREATE, id_, name, token_hash(token), *rights, grant.lifetime, replaces)
    return id_, token


async def find(connection: Connection, id_: str) -> ApiKey | None:
    """The key with this id, valid or not."""
    row = await connection.fetchrow(_FIND, id_)
    if row is None:
        return None
    return ApiKey(
        row["id"],
        row["name"],
        row["hash"],
        frozenset(row["scopes"]),
        Sight(_several(row["devices"]), _several(row["sites"])),
        row["expires_at"],
        row["revoked_at"],
    )


def _several(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


async def show(connection: Connection, id_: str) -> asyncpg.Record | None:
    """The key with this id, valid or not, without its hash."""
    return await connection.fetchrow(_SHOW, id_)


async def list_keys(connection: Connection) -> Sequence[asyncpg.Record]:
    """Every key, the oldest first, without hashes."""
    return await connection.fetch(_LIST)


async def page(connection: Connection, after: tuple[datetime, str] | None, limit: int) -> list[asyncpg.Record]:
    """The keys that were created after this time and id, the oldest first, without hashes."""
    return await connection.fetch(_PAGE, *(after or (None, None)), limit)


async def revoke(connection: Connection, id_: str, actor: str | None = None) -> bool:
    """Revoke a key with immediate effect; False when no valid key has the id."""
    name = await connection.fetchval(_REVOKE, id_)
    if name is not None:
        await audit.record(connection, actor or audit.operator(), "key.revoke", f"key:{id_}", name=name)
    return name is not None


async def rotate(
    connection: Connection, id_: str, overlap: timedelta, actor: str | None = None, lifetime: timedelta | None = None
) -> tuple[str, str] | None:
    """Create a key with the rights of an old one, which expires after `overlap`; None when no valid key has the id.

    It expires when the old one would have, unless it has a `lifetime`.
    """
    row = await connection.fetchrow(_LOCK, id_)
    if row is None:
        return None
    grant = Grant(tuple(row["scopes"]), _several(row["devices"]), lifetime or row["lifetime"], _several(row["sites"]))
    await connection.execute(_LAPSE, id_, overlap)
    successor = await _insert(connection, row["name"], grant, id_)
    by, detail = actor or audit.operator(), {"name": row["name"], "successor": successor[0]}
    await audit.record(connection, by, "key.rotate", f"key:{id_}", **detail)
    return successor


async def mark_used(connection: Connection, used: Sequence[tuple[str, object]]) -> None:
    """Record when keys were last used: (id, time)."""
    ids, times = zip(*used, strict=True)
    await connection.execute(_USED, list(ids), list(times))
