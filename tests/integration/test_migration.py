"""A database of the previous version is migrated in place while that version continues to read and write."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
from structlog.testing import capture_logs

from api import keys
from bridge.contract import METER, VEHICLE
from bridge.delivery import Kept
from bridge.errors import Misconfigured
from bridge.reading import reading
from bridge.store.migrate import _LOCK_TIMEOUT_MS, checksum, migrate, migrations
from bridge.store.postgres import PostgresStore
from local.postgres import LOGINS, Postgres
from tests.integration import version_before
from tests.integration.api.server import launch
from tests.readings import now_minute
from tests.until import until

pytestmark = pytest.mark.anyio
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row = tuple[Any, ...]

RELEASED = {
    "0001_tables": "2f6589c95a2118841cc7ad7deca612bb5b60292d571e072ef7bd416e86118ea3",
    "0002_partitions": "dec8f3ae912e39842d9ff4f3da1bb63647f57d3e6a99ff73f382ee00170ce4ce",
    "0003_security": "b02f31e7de68000faa749c9118e96810664aecb6102346aaff54317d69b58647",
    "0004_roles": "75566b89abc5083716b082aa78fecd024cf4027c8cbf5185d3079da16427bc11",
}
DEVICES, MINUTES = 20, 200
FIRST = now_minute() - timedelta(days=2)
"""The first minute of the rows; asked again, the clock may be a minute further."""
SLACK_S = 3.0
_numbers = itertools.count(1)
_FILES = (
    "SELECT oid::regclass::text, pg_relation_filenode(oid) FROM pg_class "
    "WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace AND relname <> 'schema_migration'"
)


@pytest.fixture
async def old_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database of the previous version, with readings of three days and an assignment; as its owner."""
    name = f"before{next(_numbers)}"
    for role, groups in LOGINS.items():
        postgres.ensure_login(role, groups)
    postgres.sql(f"CREATE DATABASE {name} OWNER fleet")
    url = postgres.url(name, "fleet")
    await version_before.migrate(url)
    connection = await version_before.connect_writer(postgres.url(name, "bridge"))
    await version_before.store_many(connection, rows_between(0, MINUTES))
    await version_before.reject(connection, 3)
    await connection.close()
    yield url
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def old(old_url: str) -> AsyncIterator[Connection]:
    """A connection to it, as its owner."""
    connection = await asyncpg.connect(old_url)
    yield connection
    await connection.close()


def rows_between(start: int, end: int) -> dict[str, list[Row]]:
    """Rows of every device for these minutes: the first of them lie two days back, the later ones a few days on."""
    times = [FIRST + timedelta(minutes=17 * n) for n in range(start, end)]
    vehicles = [
        (f"EV_{d:02}", at, float(n % 100), 1.5, 20.5, None) for d in range(DEVICES) for n, at in enumerate(times)
    ]
    meters = [(f"METER_{d:02}", at, 1.75, 230.0, '{"a": 1}') for d in range(DEVICES) for at in times]
    return {"vehicle": vehicles, "meter": meters}


def login_url(postgres: Postgres, url: str, role: str) -> str:
    return postgres.url(url.rsplit("/", 1)[1], role)


class Load:
    """The running programs of the previous version: their rounds are counted, and any error fails the test."""

    def __init__(self, writer_url: str, reader_url: str) -> None:
        self._writer_url, self._reader_url = writer_url, reader_url
        self._minutes = itertools.count(MINUTES)
        self.stored = MINUTES
        self.rejected = 3
        self.rounds = {"writes": 0, "questions": 0}
        self.longest_write_s = 0.0
        self._going = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._ask())]
        await self.more()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def more(self) -> None:
        """Wait for some further rounds of each; an error in any of them is raised here."""
        enough = {name: count + 3 for name, count in self.rounds.items()}
        await until(lambda: self._failed() or all(self.rounds[name] >= enough[name] for name in enough))

    def _failed(self) -> bool:
        for task in self._tasks:
            if task.done():
                task.result()
        return False

    async def _write(self) -> None:
        connection = await version_before.connect_writer(self._writer_url)
        for ways in itertools.cycle([version_before.store_many, version_before.store_few]):
            if not self._going:
                break
            await self._round(connection, ways)
        await connection.close()

    async def _round(
        self, connection: Connection, store: Callable[[Connection, dict[str, list[Row]]], Awaitable[None]]
    ) -> None:
        minute, started = next(self._minutes), time.monotonic()
        rows = rows_between(minute, minute + 1)
        assert await version_before.look_up(connection, "vehicle", rows["vehicle"]) == []
        await store(connection, rows)
        for kind, own in rows.items():
            assert await version_before.look_up(connection, kind, own) == [True] * DEVICES
        await version_before.reject(connection, 1)
        self.stored += 1
        self.rejected += 1
        self.rounds["writes"] += 1
        self.longest_write_s = max(self.longest_write_s, time.monotonic() - started)

    async def _ask(self) -> None:
        connection = await asyncpg.connect(
            self._reader_url, command_timeout=30, server_settings=version_before.READER_SESSION
        )
        while self._going:
            answered = await version_before.ask(connection, "EV_00", "METER_00", FIRST, FIRST + timedelta(days=3))
            assert answered >= 2 * DEVICES + 2 * MINUTES + 1
            self.rounds["questions"] += 1
        await connection.close()


@pytest.fixture
async def load(postgres: Postgres, old_url: str) -> AsyncIterator[Load]:
    """The previous version, running with the privileges of its roles."""
    async with Load(login_url(postgres, old_url, "bridge"), login_url(postgres, old_url, "api")) as load:
        yield load


def test_released_migrations_are_as_they_were_released() -> None:
    """Databases contain these checksums: a changed text would stop every program. Add a new migration instead."""
    assert {name: checksum(migrations()[name]) for name in RELEASED} == RELEASED
    assert list(migrations())[: len(RELEASED)] == list(RELEASED) == list(version_before.MIGRATIONS)


async def test_migration_under_load_rewrites_nothing_and_the_version_before_goes_on(
    old_url: str, old: Connection, load: Load
) -> None:
    files = {row[0]: row[1] for row in await old.fetch(_FILES)}
    assert await migrate(old_url) == list(migrations())[len(version_before.MIGRATIONS) :]
    await load.more()
    now = {row[0]: row[1] for row in await old.fetch(_FILES)}
    assert {name: now[name] for name in files} == files, "a table or an index was rewritten"
    assert len([name for name in files if "_telemetry_history_" in name]) >= 8
    noted = {row["name"]: row["checksum"] for row in await old.fetch("SELECT name, checksum FROM schema_migration")}
    assert noted == {name: checksum(sql) for name, sql in migrations().items()}
    await load.__aexit__()
    for kind in ("vehicle", "meter"):
        assert await old.fetchval(f"SELECT count(*) FROM {kind}_telemetry_history") == DEVICES * load.stored
        assert await old.fetchval(f"SELECT count(*) FROM {kind}_live_status") == DEVICES
    assert await old.fetchval("SELECT count(*) FROM rejected_message WHERE format = 'json'") == load.rejected


@pytest.mark.parametrize("table", ["vehicle_telemetry_history", "meter_live_status", "rejected_message"])
async def test_migration_that_waits_for_a_long_reader_blocks_others_for_its_time_limit_at_most(
    old_url: str, old: Connection, load: Load, table: str
) -> None:
    with capture_logs() as logs:
        async with old.transaction():
            await old.fetch(f"SELECT FROM {table} LIMIT 1")  # ACCESS SHARE, until the transaction ends
            migrating = asyncio.create_task(migrate(old_url))
            await until(lambda: waited(logs) >= 2)
            await load.more()
            assert not migrating.done()
        assert await migrating == list(migrations())[len(version_before.MIGRATIONS) :]
    await load.more()
    assert load.longest_write_s < _LOCK_TIMEOUT_MS / 1000 + SLACK_S


def waited(logs: list[Any]) -> int:
    return sum(entry["event"] == "migration waiting for a lock" for entry in logs)


async def test_migrated_database_takes_partial_readings_beside_the_version_before(
    postgres: Postgres, old_url: str, old: Connection, load: Load
) -> None:
    await migrate(old_url)
    at = now_minute()
    partial = [
        reading(VEHICLE, "EV_PARTIAL", at, {"power_kw": 7.5}),
        reading(VEHICLE, "EV_PARTIAL", at + timedelta(seconds=1), {"kwh_charged_register": 100.5}),
        reading(METER, "METER_NEW", at, {"kwh_import_register": 1.0}),
    ]
    store = PostgresStore(login_url(postgres, old_url, "bridge"), command_timeout_s=30)
    try:
        assert await store.write(partial) == [Kept.STORED] * 3
        assert await store.write(partial) == [Kept.DUPLICATE] * 3
    finally:
        await store.close()
    await load.more()
    row = await old.fetchrow(
        "SELECT * FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_PARTIAL' AND power_kw = 7.5"
    )
    assert row is not None
    assert (row["soc"], row["kwh_delivered_dc"], row["battery_temp"]) == (None, None, None)


async def test_version_before_connects_again_after_the_migration(postgres: Postgres, old_url: str) -> None:
    await migrate(old_url)
    async with Load(login_url(postgres, old_url, "bridge"), login_url(postgres, old_url, "api")) as load:
        await load.more()


async def test_migration_waits_for_longer_than_a_running_autovacuum_is_left_alone(old: Connection) -> None:
    """A session that waits longer than `deadlock_timeout` cancels a blocking autovacuum; a shorter wait does not."""
    assert await old.fetchval("SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'") < _LOCK_TIMEOUT_MS


async def test_new_api_answers_rows_of_the_version_before(
    postgres: Postgres, old_url: str, old: Connection, tmp_path: Path
) -> None:
    await migrate(old_url)
    token = (await keys.create(old, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]
    api = launch(login_url(postgres, old_url, "api"), tmp_path / "api.log", {})
    try:
        async with api.client(token) as client:
            state = (await client.get("/v1/live/vehicles/EV_03")).json()
            rows = rows_between(0, MINUTES)["vehicle"]
            newest = [row for row in rows if row[0] == "EV_03"][-1]
            assert state == {
                "vehicleId": "EV_03",
                "soc": newest[2],
                "kwhDeliveredDc": 1.5,
                "batteryTemp": 20.5,
                **{measure.name: None for measure in VEHICLE.measures if measure.example is None},
                "timestamp": newest[1].isoformat().replace("+00:00", "Z"),
                "receivedAt": state["receivedAt"],
                "extra": None,
                "silent": state["silent"],
                "ageSeconds": state["ageSeconds"],
            }
            period = {"from": newest[1].isoformat(), "to": (newest[1] + timedelta(seconds=1)).isoformat()}
            history = (await client.get("/v1/history/meters/METER_03", params=period)).json()
            assert [item["voltage"] for item in history["items"]] == [230.0]
            assert history["items"][0]["powerKw"] is None
            csv = await client.get("/v1/history/meters/METER_03", params=period, headers={"Accept": "text/csv"})
            assert csv.text.splitlines()[1].startswith("METER_03,1.75,230.0,,,,")
    finally:
        api.process.stop()


async def test_migration_that_changed_since_it_was_applied_is_refused(old_url: str, old: Connection) -> None:
    await migrate(old_url)
    await old.execute("UPDATE schema_migration SET checksum = 'another' WHERE name = '0005_measures'")
    with pytest.raises(Misconfigured, match=r"0005_measures.*restore the file"):
        await migrate(old_url)
