"""A login in the database for an analyst: it reads the history and the views, and nothing else.

Its rights are those of `fleet_reader`. Its defaults (read-only transactions, time limits) protect the database from
mistakes; a session can change them, and still cannot write.
"""

import base64
import hashlib
import hmac
import re
import secrets

import asyncpg

from bridge.errors import Misconfigured

_GROUP = "fleet_reader"
_DEFAULTS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "5min",
    # An open transaction keeps dead rows from being removed, and a waiting lock blocks those behind it.
    "idle_in_transaction_session_timeout": "5min",
    "lock_timeout": "5s",
}
_MOST_CONNECTIONS = 10
_ITERATIONS = 4096
_NAME = re.compile(r"(?!pg_|fleet)[a-z][a-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[!-~]{12,200}")
_ROLE = f"""
SELECT to_regrole($1) IS NOT NULL AS exists, me.rolsuper OR me.rolcreaterole
    AND (current_setting('server_version_num')::int < 160000 OR pg_has_role('{_GROUP}', 'USAGE WITH ADMIN OPTION'))
    AS may_create,
    ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = to_regrole($1)) AS groups
FROM pg_roles me WHERE me.rolname = current_user
"""  # noqa: S608  # a constant


async def ensure_login(database_url: str, name: str, password: str) -> None:
    """Create the login, or set its password, its group and its defaults again. The schema must be up to date.

    Raises `Misconfigured` if the name or the password does not do, if another role has the name, or if the role of the
    URL may not create logins.
    """
    check(name, password)
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            if not await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", _GROUP):
                raise Misconfigured(f"the role {_GROUP} is missing: the log above has the remedy")
            await _create_unless_exists(connection, name)
            await connection.execute(
                f"ALTER ROLE {name} LOGIN CONNECTION LIMIT {_MOST_CONNECTIONS} PASSWORD '{verifier(password)}'"
            )
            for setting, value in _DEFAULTS.items():
                await connection.execute(f"ALTER ROLE {name} SET {setting} = '{value}'")
    finally:
        await connection.close()


def check(name: str, password: str) -> None:
    """Raise `Misconfigured` if the name or the password is not acceptable."""
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            f"analyst {name!r}: a name has lower-case letters, digits and _, and does not begin with fleet or pg_"
        )
    if not _PASSWORD.fullmatch(password):
        raise Misconfigured("a password has 12 to 200 visible ASCII characters")


async def _create_unless_exists(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    role = await connection.fetchrow(_ROLE, name)
    assert role is not None
    if role["exists"] and role["groups"] != [_GROUP]:
        raise Misconfigured(f"the role {name} exists and is not an analyst's: choose another name")
    if not role["may_create"]:
        user = await connection.fetchval("SELECT quote_ident(current_user)")
        grant = f"ALTER ROLE {user} CREATEROLE; GRANT {_GROUP} TO {user} WITH ADMIN OPTION"
        raise Misconfigured(f"this role may not create logins: as a superuser run `{grant}`, then run this again")
    if not role["exists"]:
        await connection.execute(f"CREATE ROLE {name} NOLOGIN")
        await connection.execute(f"GRANT {_GROUP} TO {name}")


def verifier(password: str) -> str:
    """What PostgreSQL stores of a password (SCRAM-SHA-256, RFC 5803), so that no log of the server has the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
