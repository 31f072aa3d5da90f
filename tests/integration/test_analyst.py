"""`python -m bridge migrate --analyst` makes a login that reads the views and the history, and nothing else."""

import asyncio
import contextlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

import asyncpg
import pytest

from bridge.errors import Misconfigured
from bridge.store import analyst
from bridge.store.migrate import migrate
from bridge.store.postgres import PostgresStore
from local import views_page
from local.postgres import LOGINS, Postgres
from tests.readings import meter, vehicle

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PAGE = Path(__file__).resolve().parents[2] / "docs" / "views.md"
PASSWORD = "correct-horse-battery"
VIEWS = [comment.name for comment in views_page.comments() if comment.sort == "VIEW"]
CATALOGUE = """
SELECT c.relname || coalesce('.' || a.attname, '') AS name, d.description
FROM pg_class c LEFT JOIN LATERAL (
    SELECT attname, attnum FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 UNION ALL SELECT NULL, 0
) AS a ON true
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
"""
FUNCTIONS = """
SELECT p.proname AS name, obj_description(p.oid, 'pg_proc') AS description FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND has_function_privilege('fleet_reader', p.oid, 'EXECUTE')
  AND p.prorettype <> 'trigger'::regtype
"""
WRITES = [
    "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at) VALUES ('EV_1', now(), now())",
    "INSERT INTO meter_telemetry_history (meter_id, ts) VALUES ('M', now())",
    "UPDATE device SET name = 'mine'",
    "DELETE FROM meter_assignment",
    "UPDATE vehicle_live SET soc = 0",
    "DELETE FROM meter_assignment_interval",
    "CREATE TABLE mine ()",
    "DROP VIEW vehicle_live",
    "SELECT ensure_partition('vehicle_telemetry_history', current_date + 30)",
    "SELECT grant_roles()",
    "SELECT protect_history('device')",
    "COPY vehicle_live_status TO PROGRAM 'id'",
]
REFUSED = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a view over several tables
)
READS = ["SELECT * FROM api_key", "SELECT * FROM audit_log", "SELECT * FROM rejected_message"]


@pytest.fixture
def database(postgres: Postgres, database_url: str) -> str:
    """The name of a database with the rights of fleet_reader."""
    for role, groups in LOGINS.items():
        postgres.ensure_login(role, groups)
    asyncio.run(migrate(database_url))
    return database_url.rsplit("/", 1)[1]


def run(url: str, *options: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return subprocess.run(
        [sys.executable, "-m", "bridge", "migrate", *options],
        env={**environment, "FLEET_DATABASE_URL": url},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.asynccontextmanager
async def connected(postgres: Postgres, database: str, name: str, password: str) -> "AsyncIterator[Db]":
    url = f"postgresql://{name}:{quote(password)}@127.0.0.1:{postgres.port}/{database}"
    connection = await asyncpg.connect(url, command_timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def maria(postgres: Postgres, database: str) -> "AsyncIterator[Db]":
    """A connection of an analyst to a database with a reading of each kind."""
    store = PostgresStore(postgres.url(database, "bridge"))
    await store.write([vehicle(), meter()])
    await store.close()
    await analyst.ensure_login(postgres.url(database), "maria", PASSWORD)
    async with connected(postgres, database, "maria", PASSWORD) as connection:
        yield connection


# -- the command


async def test_new_password_is_in_a_private_file_and_nowhere_else(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "ana.password"
    made = run(postgres.url(database), "--analyst", "ana", "--password-file", str(file))
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    password = file.read_text()
    assert len(password) >= 32
    assert password not in made.stdout + made.stderr
    async with connected(postgres, database, "ana", password) as connection:
        assert await connection.fetchval("SELECT count(*) FROM vehicle_live") == 0
    again = run(postgres.url(database), "--analyst", "ana", "--password-file", str(file))
    assert (again.returncode, file.read_text()) == (0, password)


@pytest.mark.parametrize("content", [b"", b"\0" * 24, b"\xff\xfe"])
async def test_damaged_password_file_is_named_with_the_remedy(
    postgres: Postgres, database: str, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "ida.password"
    file.write_bytes(content)
    made = run(postgres.url(database), "--analyst", "ida", "--password-file", str(file))
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1].startswith(f"{file} ")
    assert "delete it" in made.stderr
    assert postgres.sql("SELECT to_regrole('ida')") == ""
    assert file.read_bytes() == content


async def test_given_password_replaces_the_one_before(postgres: Postgres, database: str) -> None:
    for password in ("the first password", "the-first-password", "the-second-password"):
        made = run(postgres.url(database), "--analyst", "eva", "--password-file", "-", given=f"{password}\n")
        assert made.returncode == (1 if " " in password else 0), made.stderr
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with connected(postgres, database, "eva", "the-first-password"):
            pass
    async with connected(postgres, database, "eva", "the-second-password") as connection:
        assert await connection.fetchval("SELECT current_user") == "eva"


async def test_owner_who_may_not_create_logins_is_told_how(postgres: Postgres, database: str, tmp_path: Path) -> None:
    postgres.ensure_database("rented", "tenant")
    options = ("--analyst", "olga", "--password-file", str(tmp_path / "olga.password"))
    refused = run(postgres.url("rented", "tenant"), *options)
    assert refused.returncode == 1
    remedy = re.search(r"run `(ALTER ROLE [^`]+)`", refused.stderr)
    assert remedy, refused.stderr
    postgres.sql(remedy[1])
    made = run(postgres.url("rented", "tenant"), *options)
    assert made.returncode == 0, made.stderr
    async with connected(postgres, "rented", "olga", (tmp_path / "olga.password").read_text()) as connection:
        assert await connection.fetchval("SELECT count(*) FROM charging_session") == 0


@pytest.mark.parametrize("name", ["bridge", "api", "fleet", "postgres", "pg_mine", "Maria", "maria; DROP ROLE api", ""])
async def test_name_of_another_role_is_refused(postgres: Postgres, database: str, name: str) -> None:
    before = postgres.sql("SELECT array_agg((rolname, rolpassword) ORDER BY 1) FROM pg_authid")
    with pytest.raises(Misconfigured, match=r"another name|a name has"):
        await analyst.ensure_login(postgres.url(database), name, PASSWORD)
    assert postgres.sql("SELECT array_agg((rolname, rolpassword) ORDER BY 1) FROM pg_authid") == before


@pytest.mark.parametrize("options", [("--analyst", "maria"), ("--password-file", "file")])
def test_login_and_password_need_each_other(database_url: str, options: tuple[str, str]) -> None:
    assert run(database_url, *options).returncode == 2


# -- the login


async def test_login_reads_every_view_and_the_history(maria: Db) -> None:
    assert await maria.fetchval("SHOW default_transaction_read_only") == "on"
    assert await maria.fetchval("SHOW statement_timeout") == "5min"
    for name in [*VIEWS, "vehicle_telemetry_history", "meter_telemetry_history"]:
        await maria.fetch(f"SELECT * FROM {name}")
    counted = {name: await maria.fetchval(f"SELECT count(*) FROM {name}") for name in VIEWS}
    empty = {"meter_assignment_interval", "reading_conflict"}
    assert {name for name, rows in counted.items() if not rows} - {"charging_session"} == empty


@pytest.mark.parametrize("statement", WRITES)
async def test_login_writes_nothing_even_in_a_transaction_that_may(maria: Db, statement: str) -> None:
    with pytest.raises(REFUSED):
        await maria.execute(statement)
    await maria.execute("SET default_transaction_read_only = off")
    with pytest.raises(REFUSED[1:]):
        await maria.execute(statement)


@pytest.mark.parametrize("statement", READS)
async def test_login_reads_no_key_and_no_audit_log(maria: Db, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await maria.execute(statement)


# -- the documentation


async def test_every_column_of_every_view_has_the_comment_of_the_page(database: str, db: Db) -> None:
    found = {row["name"]: row["description"] for row in await db.fetch(CATALOGUE)}
    assert found == {c.name: c.text for c in views_page.comments() if c.sort != "FUNCTION"}


async def test_every_function_of_a_reader_has_the_comment_of_the_page(database: str, db: Db) -> None:
    found = {row["name"]: row["description"] for row in await db.fetch(FUNCTIONS)}
    assert found == {c.name.split("(")[0]: c.text for c in views_page.comments() if c.sort == "FUNCTION"}


async def test_every_example_of_the_page_is_a_question_that_an_analyst_may_ask(maria: Db) -> None:
    examples = PAGE.read_text().partition("## Examples")[2].partition("\n## ")[0].split(";\n")[:-1]
    assert len(examples) == 3
    for example in examples:
        await maria.fetch(example)
