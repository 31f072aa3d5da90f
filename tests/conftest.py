"""Real servers for the tests: one PostgreSQL a session, with a database for each test, a broker for each test."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from bridge.store.migrate import migrate
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.databases import new_database

# A worker has a thousand tests and hardly any reference cycle; scanning for them takes a tenth of its CPU.
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of the test session; its role `fleet` owns the template and every clone of it."""
    # Each clone of the template is written to the WAL completely; compressing it takes most of the CPU.
    settings = {"shared_buffers": "128MB", "wal_compression": "off"}
    server = Postgres(tmp_path_factory.mktemp("postgres") / "server", settings=settings)
    server.start()
    server.ensure_database("template", "fleet")
    server.sql("ALTER ROLE fleet CREATEDB")
    yield server
    # An immediate shutdown, because a checkpoint of hundreds of databases is useless here.
    server.process.send(signal.SIGQUIT)
    server.stop()


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """A migrated database that tests clone, so that they are isolated from each other."""
    asyncio.run(migrate(postgres.url("template", "fleet")))
    return "template"


@pytest.fixture
def database_url(postgres: Postgres, template: str) -> str:
    """The URL of a fresh database, as its owner."""
    return new_database(postgres, template)


@pytest.fixture
async def db(database_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the test's database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A separate broker for the test."""
    server = Mosquitto(tmp_path / "mosquitto")
    server.start()
    yield server
    server.stop()
