"""The init step of the containers creates the logins of the local platform, with the passwords of its secrets."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from bridge.store.migrate import migrate
from bridge.store.postgres import PostgresStore
from local import postgres as local_postgres
from local import secrets
from local.postgres import LOGINS, Postgres
from tests.readings import vehicle

_SCRIPT = Path(secrets.__file__).with_name("logins.sh")
_MEMBERSHIPS = """
SELECT member::regrole::text, array_agg(roleid::regrole::text ORDER BY roleid) FROM pg_auth_members
WHERE roleid::regrole::text LIKE 'fleet%' GROUP BY member
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """A separate server, because passwords belong to the cluster."""
    one = Postgres(tmp_path / "postgres", settings={"shared_buffers": "16MB"})
    one.start()
    one.sql("CREATE DATABASE fleet")
    yield one
    one.stop()


def init_step(server: Postgres, directory: Path) -> None:
    """Run the container's script, with the psql of `make up`."""
    (directory / "postgres_password").write_text((server.directory / "password").read_text())
    path = f"{Path(local_postgres.binary('psql')).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "fleet"}
    subprocess.run(["sh", str(_SCRIPT), str(directory)], env=env, check=True)


def address(server: Postgres, directory: Path, login: str) -> str:
    url = (directory / f"fleet_database_url_{login}").read_text()
    return url.replace("@postgres:5432/", f"@127.0.0.1:{server.port}/")


def test_logins_have_their_groups_and_work_after_the_migration(server: Postgres, tmp_path: Path) -> None:
    directory = secrets.make(tmp_path / "secrets")

    async def check() -> None:
        await migrate(server.url("fleet"))
        owner = await asyncpg.connect(server.url("fleet"))
        found = {member: set(groups) for member, groups in await owner.fetch(_MEMBERSHIPS)}
        assert found == {login: set(groups) for login, groups in LOGINS.items()}
        await owner.close()
        for number, login in enumerate(LOGINS):
            store = PostgresStore(address(server, directory, login))
            assert len(await store.write([vehicle(f"EV_{number}")])) == 1
            await store.close()

    init_step(server, directory)
    asyncio.run(check())


def test_new_password_file_is_the_new_password(server: Postgres, tmp_path: Path) -> None:
    directory = secrets.make(tmp_path / "secrets")
    init_step(server, directory)
    old = address(server, directory, "api")
    for name in ("postgres_password_api", "fleet_database_url_api"):
        (directory / name).unlink()
    secrets.make(directory)
    init_step(server, directory)

    async def check() -> None:
        await (await asyncpg.connect(address(server, directory, "api"))).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(old)

    asyncio.run(check())
