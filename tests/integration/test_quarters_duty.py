"""The duty that makes the summaries, in a keeper: interrupted, behind, hindered; and what it tells about itself."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from bridge.contract import KINDS, METER, VEHICLE
from bridge.delivery import Kept
from bridge.errors import StoreUnavailable
from bridge.keeper.leader import leading
from bridge.keeper.port import Duty
from bridge.keeper.quarters import Quarters
from bridge.settings.keeper import KeeperSettings
from bridge.store.postgres import PostgresStore
from bridge.store.session import Connection
from tests.bridges import Health
from tests.keepers import keeping
from tests.proxy import Direction, Link, proxy_before
from tests.quarters import QUARTER, assert_right, closed_until, quarter_of
from tests.readings import meter, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
BEGIN = quarter_of(datetime.now(UTC)) - timedelta(hours=3)
FAILURES = "fleet_keeper_duty_failures_total"
BEHIND, DIRTY = "fleet_keeper_quarters_behind_seconds", "fleet_keeper_dirty_quarters"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    yield store
    await store.close()


def quarters() -> Duty:
    """The duty alone, without the minute after a quarter hour's end."""
    return Quarters(0.001, 5.0).duty


async def is_done(db: Db) -> bool:
    """Whether all that is over is closed and composed, and no mark is left."""
    over = quarter_of(await db.fetchval("SELECT now()")) - QUARTER  # a quarter hour may end meanwhile
    left = [await db.fetchval(f"SELECT count(*) FROM {kind.dirty_table}") for kind in KINDS]
    composed = await db.fetchval(
        "SELECT bool_and(composed_until > closed_until - interval '1 hour' "
        "AND six_hours_until > composed_until - interval '6 hours') FROM quarter_mark"
    )
    return composed and min([await closed_until(db, kind) for kind in KINDS]) >= over and not any(left)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_session_cut_at_any_statement_loses_and_doubles_nothing(
    database_url: str, db: Db, store: PostgresStore, direction: Direction
) -> None:
    """Cut before the n-th message reaches the server, or before its answer comes back, for every n of a whole run."""
    for n in range(1, 200):
        seen = 0

        def cut(link: Link, going: Direction, _: bytes, n: int = n) -> None:
            nonlocal seen
            seen += link.number == 1 and going == direction
            if link.number == 1 and seen == n:
                link.cut()

        again = "UPDATE quarter_mark SET closed_until = $1, marked_until = $1"
        await db.execute(again, BEGIN + 2 * QUARTER)
        await store.write([vehicle(f"EV_{n}", BEGIN), vehicle(f"EV_{n}", BEGIN + 3 * QUARTER)])  # late, and in time
        assert not await is_done(db)
        async with proxy_before(database_url) as (proxy, through):
            proxy.watch = cut
            await _keep(through)
        assert await is_done(db)
        assert await assert_right(db) == 2 * n
        if seen < n:
            break
    assert seen < n > 20, "the last run was not cut, the ones before were"


async def _keep(url: str) -> None:
    """What a keeper does, without its pauses: run the duty until all is done, with another session if it is lost."""
    duty, settings = Quarters(0.001, 5.0), KeeperSettings.model_validate({"database_url": url})
    while True:
        try:
            async with leading(settings) as connection:
                while await duty.run(connection):
                    pass
                return
        except StoreUnavailable:  # also while the server has not noticed the end of the session before
            await asyncio.sleep(0)


async def _fill(db: Db, days: int) -> datetime:
    """So many days of ten vehicles, as a version without quarter hours left them; returns the first instant."""
    first: datetime = await db.fetchval("SELECT date_trunc('day', now(), 'UTC') - $1::interval", timedelta(days=days))
    for n in range(days + 1):
        await db.execute("SELECT ensure_partition('vehicle_telemetry_history', $1)", (first + timedelta(days=n)).date())
    await db.execute(
        "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, kwh_delivered_dc) SELECT 'EV_' || d, t, 50, 1 "
        "FROM generate_series($1::timestamptz, now(), '7 minutes') t, generate_series(1, 10) d",
        first,
    )
    await db.execute("INSERT INTO vehicle_live_status SELECT 'EV_' || d, now(), now() FROM generate_series(1, 10) d")
    return first


async def test_history_from_before_is_summarized_in_steps_between_other_duties(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step has its own turn here; as a rule one turn has as many steps as a second has time for."""
    monkeypatch.setattr("bridge.keeper.quarters._TURN_S", 0.0)
    first, steps = await _fill(db, 30), []

    async def look(connection: Connection) -> bool:
        steps.append(await closed_until(connection, VEHICLE))
        return False

    async with keeping(database_url, [Duty("look", 0.001, look), quarters()]) as keeper:
        await until(lambda: is_done(db))
        await until(keeper.ready)
    assert len(set(steps)) > 20, "others had their turn"
    assert max(b - a for a, b in itertools.pairwise(steps) if a > first) <= timedelta(days=1)
    assert await assert_right(db) >= 10 * 30 * 96


async def test_kind_that_fails_does_not_keep_the_others_from_being_summarized(
    database_url: str, db: Db, store: PostgresStore
) -> None:
    await store.write([vehicle("EV_1", BEGIN), meter("METER_1", BEGIN)])
    await db.execute("ALTER TABLE vehicle_quarter RENAME COLUMN steepest_kw TO gone")
    async with keeping(database_url, [quarters()]) as keeper:
        await until(lambda: keeper.metric(FAILURES, duty="quarters"))
        await until(lambda: _is_closed(db))
        assert await closed_until(db, VEHICLE) < BEGIN
        await db.execute("ALTER TABLE vehicle_quarter RENAME COLUMN gone TO steepest_kw")
        await until(lambda: is_done(db))
        await until(keeper.ready)
    assert await assert_right(db) == 2


async def _is_closed(db: Db) -> bool:
    return await closed_until(db, METER) > BEGIN


async def test_transaction_that_does_not_end_is_told_and_delays_no_reading(
    database_url: str, db: Db, store: PostgresStore
) -> None:
    """Marks are cleaned meanwhile, and the keeper continues when it has ended."""
    await store.write([vehicle("EV_1", BEGIN), meter("METER_1", BEGIN)])
    await db.execute("UPDATE quarter_mark SET closed_until = $1, marked_until = $1", BEGIN)
    await store.write([vehicle("EV_1", BEGIN - timedelta(minutes=1))])
    holding = await asyncpg.connect(database_url)
    pid = await holding.fetchval("SELECT pg_backend_pid()")
    transaction = holding.transaction()
    await transaction.start()
    at = BEGIN + timedelta(minutes=20)
    await holding.execute("INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc) VALUES ('EV_1', $1, 1)", at)
    async with keeping(database_url, [Quarters(0.001, 0.5).duty]) as keeper:
        await until(lambda: _says(keeper, f"does not end (pid {pid})"))
        status, body = await keeper.get("/readyz")
        told = json.loads(body)
        assert status == 503
        assert told["quarters"]["behindSeconds"]["vehicle"] >= 2 * 3600
        assert told["quarters"]["dirty"] == {"vehicle": 0, "meter": 0}
        assert await keeper.metric(BEHIND, kind="vehicle") >= 2 * 3600
        assert await closed_until(db, METER) > BEGIN
        assert await keeper.metric("fleet_keeper_leader") == 1
        assert await asyncio.wait_for(store.write([vehicle("EV_2"), meter("METER_2")]), 20) == [Kept.STORED] * 2
        assert await closed_until(db, VEHICLE) == BEGIN
        await transaction.commit()
        await until(lambda: is_done(db))
        await until(keeper.ready)
        assert await keeper.metric(BEHIND, kind="vehicle") == 0
    await holding.close()
    assert await assert_right(db) >= 3


async def _says(keeper: Health, text: str) -> bool:
    return text in (await keeper.get("/readyz"))[1]


async def test_marks_are_counted_while_the_duty_is_hindered(database_url: str, db: Db, store: PostgresStore) -> None:
    await store.write([vehicle("EV_1", BEGIN)])
    await db.execute("UPDATE quarter_mark SET closed_until = $1, marked_until = $1", BEGIN + QUARTER)
    await db.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'")
    await store.write([vehicle(f"EV_{n}", BEGIN + timedelta(minutes=1)) for n in range(7)])
    await db.execute("CREATE TRIGGER refuse BEFORE DELETE ON vehicle_quarter_dirty EXECUTE FUNCTION refuse()")
    async with keeping(database_url, [quarters()]) as keeper:
        await until(lambda: _is_metric(keeper, DIRTY, 7.0))
        await db.execute("DROP TRIGGER refuse ON vehicle_quarter_dirty")
        await until(lambda: is_done(db))
        await until(lambda: _is_metric(keeper, DIRTY, 0.0))
    await assert_right(db)


async def _is_metric(keeper: Health, name: str, value: float) -> bool:
    return await keeper.metric(name, kind="vehicle") == value


async def test_duty_that_does_not_catch_up_is_a_problem(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind by more than an hour is none as long as quarter hours are summarized."""
    await _fill(db, 1)
    duty = Quarters(0.001, 5.0)
    assert await duty._close(db, VEHICLE)
    assert duty.duty.figures[0].value(VEHICLE) > 3600
    assert duty.problem() is None
    monkeypatch.setattr("bridge.keeper.quarters._STUCK_S", -1.0)
    assert duty.problem() == "no quarter hour of vehicle is summarized"
    while await duty.run(db):
        pass
    assert duty.problem() is None
