"""Real servers for the tests: one PostgreSQL a session, with a database for each test, a broker for each test."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from bridge.settings.group import variable
from bridge.store.migrate import migrate
from local.mosquitto import Mosquitto
from local.nats import Nats
from local.postgres import Postgres
from tests.databases import new_database
from tests.readings import now_minute

_Server = TypeVar("_Server", Mosquitto, Nats)
_PORTS = (15_000, 32_000)

# A worker has a thousand tests and hardly any reference cycle; scanning for them takes a tenth of its CPU.
gc.set_threshold(100_000, 20, 20)


def pytest_configure() -> None:
    """Each process of a run has ports of its own: where it stops a server, no other process takes the port meanwhile.

    So have the programs that it starts.
    """
    worker, workers = (
        os.environ.get("PYTEST_XDIST_WORKER", "gw0"),
        int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
    )
    first, end = _PORTS
    size = (end - first) // workers
    begin = first + size * (int(worker.removeprefix("gw")) % workers)
    os.environ |= {variable("test_first_port"): str(begin), variable("test_last_port"): str(begin + size - 1)}


def pytest_runtest_setup() -> None:
    """Each test has a minute of its own."""
    now_minute.cache_clear()


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


def _running(server: _Server) -> Iterator[_Server]:
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A separate broker for the test."""
    yield from _running(Mosquitto(tmp_path / "mosquitto"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Nats]:
    """A NATS server."""
    yield from _running(Nats(tmp_path / "nats"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Nats]:
    """Three NATS servers that are a cluster."""
    yield from _running(Nats(tmp_path / "nats", 3))
