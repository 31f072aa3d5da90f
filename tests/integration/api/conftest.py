"""The real API process on a free port, with a separate database and keys for every purpose."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from api import keys
from bridge.store.migrate import migrate, migrations, widen_partition_window
from local.postgres import LOGINS, Postgres
from tests.integration.api.server import Api, Connection, launch

# The history refuses DELETE; the replica role has no triggers. TRUNCATE would recreate forty files for a few rows.
_TABLES = (
    *("vehicle_telemetry_history", "meter_telemetry_history", "vehicle_live_status", "meter_live_status"),
    *("device", "meter_assignment", "rejected_message", "reject_id", "reject_excess", "api_key", "audit_log"),
    *("alarm_delivery", "alarm", "alarm_webhook", "process_status", "database_size"),
)
_SUMMARIES = (
    *("vehicle_quarter", "meter_quarter", "vehicle_quarter_dirty", "meter_quarter_dirty", "quarter_day"),
    *("vehicle_hour", "meter_hour", "vehicle_six_hour", "meter_six_hour"),
)
_RULES = [rule for sql in migrations().values() for rule in re.findall(r"INSERT INTO alarm_rule [^;]+", sql)]
_EMPTY = "; ".join(
    [
        "SET session_replication_role = replica",
        *(f"DELETE FROM {table}" for table in (*_TABLES, *_SUMMARIES)),
        "DELETE FROM alarm_rule",
        *_RULES,
        "UPDATE quarter_mark SET marked_until = DEFAULT, closed_until = DEFAULT, composed_until = DEFAULT, "
        "six_hours_until = DEFAULT",
    ]
)


@pytest.fixture(scope="session")
def api_database_url(postgres: Postgres, template: str) -> str:
    """One database for all tests here, emptied before each: starting a process for each would take minutes."""
    postgres.sql(f"CREATE DATABASE api TEMPLATE {template} OWNER fleet")
    postgres.ensure_login("api", LOGINS["api"])
    asyncio.run(migrate(postgres.url("api", "fleet")))
    asyncio.run(widen_partition_window(postgres.url("api", "fleet"), 3_660, 366))
    return postgres.url("api", "fleet")


@pytest.fixture(scope="session")
def login_url(postgres: Postgres, api_database_url: str) -> str:
    """The same database with the API's login, which has the same rights as in production."""
    return postgres.url("api", "api")


@pytest.fixture
def database_url(postgres: Postgres, api_database_url: str) -> str:
    """The shared database, empty."""
    postgres.sql(_EMPTY, "api")
    return api_database_url


@pytest.fixture(scope="session")
def shared_api(login_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = launch(login_url, tmp_path_factory.mktemp("api") / "api.log", {})
    yield api
    api.process.stop()


@pytest.fixture
def api(shared_api: Api, database_url: str) -> Api:
    """An API with default settings and an empty database."""
    return shared_api


@pytest.fixture
def start_api(
    login_url: str,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Callable[..., Api]]:
    """Start an API process with other settings; all are stopped after the test."""
    started: list[Api] = []

    def start(**settings: object) -> Api:
        started.append(launch(login_url, tmp_path / f"api{len(started)}.log", settings))
        return started[-1]

    yield start
    for api in started:
        api.process.stop()


@pytest.fixture
async def token(db: Connection) -> str:
    """A key with the default scopes."""
    return (await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]


@pytest.fixture
async def client(api: Api, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with that key."""
    async with api.client(token) as client:
        yield client
