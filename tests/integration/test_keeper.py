"""The keeper: partitions ahead, one leader, and readings that never wait for it."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from bridge.contract import KINDS
from bridge.delivery import Kept
from bridge.keeper.partitions import partitions as partitions_duty
from bridge.keeper.port import Duty
from bridge.store.database_errors import asking
from bridge.store.migrate import migrate
from bridge.store.postgres import PostgresStore
from bridge.store.session import Connection
from local.ports import free_port
from local.postgres import LOGINS, Postgres
from tests.bridges import Health, environment
from tests.keepers import keeper_processes, keeping
from tests.proxy import Direction, Link, proxy_before
from tests.readings import meter, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READY = (
    '{"status":"ready","quarters":{"behindSeconds":{"vehicle":0.0,"meter":0.0},"dirty":{"vehicle":0.0,"meter":0.0}}}'
)
HISTORIES = ("vehicle_telemetry_history", "meter_telemetry_history")
_ATTACHED = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ANY($1::regclass[])"
_DAYS = """
    SELECT history || to_char((now() AT TIME ZONE 'UTC')::date + n, '_YYYYMMDD')
    FROM unnest($1::text[]) history, generate_series(0, $2::int) n
"""
_STRAY = r"""
    SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '_telemetry_history_\d+$'
    AND NOT (relispartition AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = 'no_truncate'))
"""
"""What is not a whole partition."""
_NOT_LOCKED_S = 10.0  # on a machine that runs other tests; the lock would be held until the test ends
FAILURES, LAG = "fleet_keeper_duty_failures_total", "fleet_keeper_duty_lag_seconds"


async def partitions(db: Db) -> set[str]:
    return {row[0] for row in await db.fetch(_ATTACHED, HISTORIES)}


async def ahead(db: Db, days: int, *histories: str) -> set[str]:
    """The partitions of today and so many days."""
    return {row[0] for row in await db.fetch(_DAYS, histories or HISTORIES, days)}


async def prepared(db: Db, days: int, *histories: str) -> bool:
    return await ahead(db, days, *histories) <= await partitions(db)


async def state(health: Health) -> tuple[int, str]:
    return await health.get("/readyz")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    yield store
    await store.close()


# -- Partitions


async def test_partitions_are_created_ahead_with_the_bridge_login(
    tmp_path: Path, postgres: Postgres, database_url: str, db: Db
) -> None:
    postgres.ensure_login("bridge", LOGINS["bridge"])
    await migrate(database_url)
    url = postgres.url(database_url.rsplit("/", 1)[1], "bridge")
    async with keeper_processes(tmp_path, url, 1, partitions_ahead_days=5) as (keeper,):
        await keeper.start()
        await until(lambda: prepared(db, 5))
        assert await partitions(db) == await ahead(db, 5)
        assert await db.fetch(_STRAY) == []
        await until(lambda: keeper.metric("fleet_keeper_duty_seconds_count", duty="partitions"))
        assert await keeper.metric("fleet_keeper_leader") == 1
        assert await keeper.metric(FAILURES, duty="partitions") == 0
        assert await keeper.metric(LAG, duty="partitions") == 0
        await until(lambda: _is_ready(keeper))
        assert await keeper.stop() == 0


async def _is_ready(keeper: Health) -> bool:
    return await state(keeper) == (200, _READY)


async def test_readings_of_today_are_stored_while_the_keeper_waits_for_a_locked_history(
    database_url: str, db: Db, store: PostgresStore
) -> None:
    """The lock of a long ANALYZE; the writers would have waited for it with today's readings."""
    assert await store.write([vehicle("EV_1"), meter("METER_1")]) == [Kept.STORED] * 2
    async with keeping(database_url) as keeper:
        await until(lambda: prepared(db, 3))
        await until(keeper.ready)
    tomorrow = next(iter(await ahead(db, 1, HISTORIES[0]) - await ahead(db, 0, HISTORIES[0])))
    await db.execute(f"DROP TABLE {tomorrow}")
    locking = await asyncpg.connect(database_url)
    analysis = locking.transaction()
    await analysis.start()
    await locking.execute("ANALYZE vehicle_telemetry_history")
    async with keeping(database_url) as keeper:
        await until(lambda: _failed(keeper, 3))
        status, problem = await state(keeper)
        assert (status, "partitions: the last" in problem, "lock" in problem) == (503, True, True)
        assert await keeper.metric(LAG, duty="partitions") > 0
        for n in range(20):
            assert await _seconds(store, f"{n + 2}") < _NOT_LOCKED_S
        fresh = PostgresStore(database_url, source="http")  # as after a restart
        assert await _seconds(fresh, "99") < _NOT_LOCKED_S
        await fresh.close()
        assert not await prepared(db, 3)
        await analysis.rollback()
        await until(lambda: prepared(db, 3))
        await until(keeper.ready)
        assert await keeper.metric(LAG, duty="partitions") == 0
    await locking.close()


async def _seconds(store: PostgresStore, number: str) -> float:
    """How long two readings take to be stored."""
    began = time.monotonic()
    assert await store.write([vehicle(f"EV_{number}"), meter(f"METER_{number}")]) == [Kept.STORED] * 2
    return time.monotonic() - began


async def _failed(keeper: Health, times: int) -> bool:
    return await keeper.metric(FAILURES, duty="partitions") >= times


async def test_locked_history_does_not_keep_the_others_from_being_prepared(database_url: str, db: Db) -> None:
    async with db.transaction():
        await db.execute("LOCK TABLE vehicle_telemetry_history IN SHARE UPDATE EXCLUSIVE MODE")
        async with keeping(database_url):
            await until(lambda: prepared(db, 3, HISTORIES[1]))
            assert await partitions(db) == await ahead(db, 3, HISTORIES[1])


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_session_cut_at_any_statement_leaves_whole_partitions_and_every_reading(
    database_url: str, db: Db, store: PostgresStore, direction: Direction
) -> None:
    """Cut before the n-th message reaches the server, or before its answer comes back, for every n of a whole run."""
    stored = 0
    for n in range(1, 100):
        seen = leaders = 0

        def cut(link: Link, going: Direction, data: bytes, n: int = n) -> None:
            nonlocal seen, leaders
            if not leaders and b"\0fleet-keeper\0" in data:  # the first message of the leader's first session
                leaders = link.number
            seen += link.number == leaders and going == direction
            if link.number == leaders and seen == n:
                link.cut()

        for name in await partitions(db) - await ahead(db, 0):
            await db.execute(f"DROP TABLE {name}")
        async with proxy_before(database_url) as (proxy, through):
            proxy.watch = cut
            async with keeping(through, partitions_ahead_days=1) as keeper:
                await until(lambda: prepared(db, 1))
                await until(keeper.ready)
                assert await store.write([vehicle(f"EV_{n}")]) == [Kept.STORED]
                stored += 1
                assert await db.fetch(_STRAY) == []
                assert await partitions(db) == await ahead(db, 1)
        if seen < n:
            break
    assert seen < n > 10, "the last run was not cut, the ones before were"
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == stored


async def test_months_of_summaries_are_created_ahead(db: Db) -> None:
    await partitions_duty(40).run(db)
    months = (
        "SELECT DISTINCT $1 || to_char((now() AT TIME ZONE 'UTC')::date + n, '_YYYYMM') FROM generate_series(0, 40) n"
    )
    attached = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass"
    for table in (table for kind in KINDS for table in (kind.quarter_table, kind.hour_table, kind.six_hour_table)):
        found = {row[0] for row in await db.fetch(attached, table)}
        assert found == {row[0] for row in await db.fetch(months, table)}
        assert len(found) >= 2


# -- Leader and standby


async def test_standby_takes_over_when_the_leader_is_killed(tmp_path: Path, database_url: str, db: Db) -> None:
    async with keeper_processes(tmp_path, database_url, 2) as (first, second):
        await first.start()
        second.process.start()
        await until(lambda: _stands_by(second))
        assert (await second.get("/healthz"))[0] == 200
        assert (await first.metric("fleet_keeper_leader"), await second.metric("fleet_keeper_leader")) == (1, 0)
        assert await second.metric(LAG, duty="partitions") == 0
        await until(lambda: prepared(db, 3))
        first.process.kill()
        for name in await partitions(db):
            await db.execute(f"DROP TABLE {name}")
        await until(second.ready)
        await until(lambda: prepared(db, 3))
        assert await second.metric("fleet_keeper_leader") == 1
        first.process.start()
        await until(lambda: _stands_by(first))


async def _stands_by(keeper: Health) -> bool:
    status, problem = await state(keeper)
    return status == 503 and "standing by: another keeper leads" in problem


async def test_frozen_leader_loses_the_lock_to_the_standby(tmp_path: Path, database_url: str) -> None:
    async with keeper_processes(tmp_path, database_url, 2, keeper_timeout_s=1) as (first, second):
        await first.start()
        second.process.start()
        await until(lambda: _stands_by(second))
        first.process.send(signal.SIGSTOP)
        await until(second.ready)
        first.process.send(signal.SIGCONT)
        await until(lambda: _stands_by(first))
        assert (await first.metric("fleet_keeper_leader"), await second.metric("fleet_keeper_leader")) == (0, 1)


async def test_idle_leader_keeps_its_session(database_url: str, db: Db) -> None:
    """What the database ends is the session of a silent keeper, not of one that has nothing to do."""
    async with keeping(database_url, keeper_timeout_s=0.5) as keeper:
        await until(keeper.ready)
        pid = await db.fetchval(_SESSION)
        await until(lambda: db.fetchval(_OLDER, timedelta(seconds=1.5)))
        assert await db.fetchval(_SESSION) == pid


_OLDER = "SELECT now() - backend_start > $1 FROM pg_stat_activity WHERE application_name = 'fleet-keeper'"
_SESSION = "SELECT pid FROM pg_stat_activity WHERE application_name = 'fleet-keeper' AND datname = current_database()"


async def test_leader_leads_again_after_its_session_was_ended(database_url: str, db: Db) -> None:
    async with keeping(database_url, keeper_timeout_s=3) as keeper:
        await until(keeper.ready)
        assert await db.fetchval(_SESSION.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
        await until(lambda: _state_is(keeper, 503))
        await until(keeper.ready)


class Unclean:
    """A companion that loses its sessions when it is cancelled, so that giving them back fails."""

    def measure(self, _: CollectorRegistry) -> None:
        pass

    async def run(self) -> None:
        with asking():
            try:
                await asyncio.Event().wait()
            finally:
                raise asyncpg.InterfaceError("the connection is closed")


async def test_leader_leads_again_when_a_clean_up_fails_as_its_session_is_lost(database_url: str, db: Db) -> None:
    async def rest(_: Connection) -> bool:
        return False

    async with keeping(database_url, [Duty("rest", 60.0, rest)], [Unclean()], keeper_timeout_s=3) as keeper:
        await until(keeper.ready)
        assert await db.fetchval(_SESSION.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
        await until(lambda: _state_is(keeper, 503))
        await until(keeper.ready)


async def _state_is(keeper: Health, status: int) -> bool:
    return (await state(keeper))[0] == status


# -- Duties


async def test_duty_that_fails_is_told_and_does_not_stop_the_others(database_url: str) -> None:
    runs = 0

    async def fail(connection: Connection) -> bool:
        await connection.execute("SELECT * FROM api_keys_of_somebody_else")
        return False

    async def crash(_: Connection) -> bool:
        raise ZeroDivisionError

    async def count(_: Connection) -> bool:
        nonlocal runs
        runs += 1
        return False

    own = [Duty("fail", 60.0, fail), Duty("crash", 60.0, crash), Duty("count", 0.01, count)]
    async with keeping(database_url, own) as keeper:
        await until(lambda: _both_failed(keeper))
        assert (await keeper.get("/healthz"))[0] == 200
        before = runs
        await until(lambda: runs > before)
        _, problem = await state(keeper)
        assert "fail: the last" in problem
        assert "api_keys_of_somebody_else" in problem
        assert await keeper.metric(FAILURES, duty="count") == 0


async def _both_failed(keeper: Health) -> bool:
    return await keeper.metric(FAILURES, duty="fail") >= 3 and await keeper.metric(FAILURES, duty="crash") >= 3


async def test_sigterm_ends_a_duty_at_once(tmp_path: Path, database_url: str, db: Db) -> None:
    patient = keeper_processes(tmp_path, database_url, 1, keeper_lock_timeout_ms=60_000)
    async with patient as (keeper,), db.transaction():
        await db.execute("LOCK TABLE vehicle_telemetry_history IN SHARE UPDATE EXCLUSIVE MODE")
        await keeper.start()
        await until(lambda: db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        began = time.monotonic()
        assert await keeper.stop() == 0
        assert time.monotonic() - began < 30


# -- Start


def run(**fields: object) -> "subprocess.CompletedProcess[str]":
    env = environment(**{"keeper_http_port": free_port(), **fields})
    command = [sys.executable, "-m", "bridge", "keep"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


def test_wrong_settings_stop_the_start_with_their_names() -> None:
    result = run(keeper_lock_timeout_ms=0, keeper_timeout_s="soon")
    assert result.returncode == 2
    assert sorted(line.partition(":")[0] for line in result.stderr.splitlines()) == [
        "FLEET_KEEPER_LOCK_TIMEOUT_MS",
        "FLEET_KEEPER_TIMEOUT_S",
    ]


async def test_schema_of_another_version_stops_the_start(database_url: str, db: Db) -> None:
    await db.execute("UPDATE schema_migration SET checksum = 'another' WHERE name = '0002_partitions'")
    result = await asyncio.to_thread(run, database_url=database_url)
    assert (result.returncode, "0002_partitions" in result.stderr) == (2, True)


async def test_taken_port_stops_the_start_with_its_name(tmp_path: Path, database_url: str) -> None:
    async with keeper_processes(tmp_path, database_url, 1) as (keeper,):
        await keeper.start()
        result = await asyncio.to_thread(run, keeper_http_port=keeper.port, database_url=database_url)
    assert (result.returncode, "FLEET_KEEPER_HTTP_PORT" in result.stderr) == (2, True)
